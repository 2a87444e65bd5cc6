//! Tables as Go's tabwriter lays them out.

use std::fmt::Write;

/// Columns that are at least `least` wide and at least 3 blanks apart.
pub(crate) fn columns<const N: usize>(
    head: [&str; N],
    rows: Vec<[String; N]>,
    least: usize,
) -> String {
    let rows: Vec<_> = std::iter::once(head.map(str::to_owned))
        .chain(rows)
        .collect();
    let widths: [usize; N] = std::array::from_fn(|column| {
        let widths = rows.iter().map(|row| row[column].chars().count() + 3);
        widths.max().unwrap_or(0).max(least)
    });
    let mut text = String::new();
    for row in &rows {
        let (last, others) = row.split_last().expect("a table has columns");
        for (cell, width) in others.iter().zip(widths) {
            let _ = write!(text, "{cell:width$}");
        }
        text.push_str(last);
        text.push('\n');
    }
    text
}
