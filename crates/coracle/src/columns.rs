//! Tables as Go's tabwriter lays them out.

/// Columns that are at least `least` wide and at least 3 blanks apart.
pub(crate) fn columns<const N: usize>(
    head: [&str; N],
    rows: Vec<[String; N]>,
    least: usize,
) -> String {
    let rows: Vec<_> = std::iter::once(head.map(str::to_owned))
        .chain(rows)
        .collect();
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count() + 3);
        widths.max().unwrap_or(0).max(least)
    };
    let mut text = String::new();
    for row in &rows {
        let (last, others) = row.split_last().expect("a table has columns");
        for (column, cell) in others.iter().enumerate() {
            text.push_str(&format!("{cell:0$}", width(column)));
        }
        text.push_str(last);
        text.push('\n');
    }
    text
}
