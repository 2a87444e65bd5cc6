//! docs/SPEC.md: every property of the runtime specification, how it is observed, and by which test. The page is made of the table here
//! (`UPDATE_SPEC=1 cargo test -p runtime-tests --test spec`), and these tests hold both to the truth.

mod properties;
mod table;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use table::{COMPLAINTS, CONFIG, LINUX, NOT_OF_LINUX, RENAMED, Row};

fn rows() -> impl Iterator<Item = &'static Row> {
    CONFIG.iter().chain(LINUX)
}

/// `{a,b}` as what it stands for.
fn expand(property: &str) -> Vec<String> {
    let Some((before, rest)) = property.split_once('{') else {
        return vec![property.to_owned()];
    };
    let (choices, after) = rest.split_once('}').expect("a brace that closes");
    let one = |choice| expand(&format!("{before}{choice}{after}"));
    choices.split(',').flat_map(one).collect()
}

/// What the runtime's parser knows, by the specification's names.
fn known() -> BTreeSet<String> {
    let renamed = |name: String| {
        let pair = RENAMED.iter().find(|(parsed, _)| *parsed == name);
        pair.map_or(name, |(_, specified)| (*specified).to_owned())
    };
    properties::all()
        .into_iter()
        .map(renamed)
        .filter(|name| !NOT_OF_LINUX.contains(&name.as_str()))
        .collect()
}

#[test]
fn every_property_has_a_row_and_every_row_a_property() {
    let listed: BTreeSet<_> = rows().flat_map(|row| expand(row.property)).collect();
    let known = known();
    let missing: Vec<_> = known.difference(&listed).collect();
    assert!(missing.is_empty(), "no row for {missing:#?}");
    let unknown: Vec<_> = listed.difference(&known).collect();
    assert!(unknown.is_empty(), "no such property: {unknown:#?}");
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("")
}

/// The file of a test, from the root of the repository, and its name in it.
fn place(test: &str) -> (String, &str) {
    let (file, name) = test.split_once("::").expect("file::name");
    let path = match (file.ends_with(".rs"), file.contains('/')) {
        (true, _) => format!("crates/{file}"),
        (false, true) => format!("runtime-tests/tests/{file}.rs"),
        (false, false) => format!("runtime-tests/tests/behaviours/{file}.rs"),
    };
    (path, name)
}

#[test]
fn every_test_that_is_named_exists() {
    for row in rows().chain(COMPLAINTS) {
        let (file, name) = place(row.test);
        let text = fs::read_to_string(repository().join(&file)).unwrap_or_default();
        let test = text.split("#[test]").skip(1).any(|rest| {
            let line = rest
                .lines()
                .find(|line| line.trim_start().starts_with("fn "));
            line.is_some_and(|line| line.contains(&format!("fn {name}(")))
        });
        assert!(test, "{}: no test {name} in {file}", row.property);
    }
}

fn page() -> String {
    let mut page = String::from(
        "# The runtime specification, property by property\n\n\
         Made by `UPDATE_SPEC=1 cargo test -p runtime-tests --test spec` from `runtime-tests/tests/spec/table.rs`; a test fails when this page is \
         stale, when a property of runtime-spec 1.3 has no row, or when a test that is named here does not exist. `[]` is an entry of a list, `*` one \
         of a map, `{a,b}` either. How it is observed is meant from inside the container. The last column says where runc, crun or youki differ.\n",
    );
    for (title, subject, rows) in [
        ("config.md", "property", CONFIG),
        ("config-linux.md", "property", LINUX),
        (
            "What users of other runtimes have complained about",
            "complaint",
            COMPLAINTS,
        ),
    ] {
        let _ = write!(
            page,
            "\n## {title}\n\n| {subject} | observed by | test | others |\n|---|---|---|---|\n"
        );
        for row in rows {
            let (file, name) = place(row.test);
            let shown = row.property.replace("[]", "\\[\\]").replace('*', "\\*");
            let _ = writeln!(
                page,
                "| {shown} | {} | [{name}](../{file}) | {} |",
                row.seen, row.others
            );
        }
    }
    page
}

#[test]
fn the_page_is_what_the_table_says() {
    let path = repository().join("docs/SPEC.md");
    if std::env::var_os("UPDATE_SPEC").is_some() {
        fs::write(&path, page()).expect("the repository is writable");
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == page(),
        "docs/SPEC.md is stale: UPDATE_SPEC=1 cargo test -p runtime-tests --test spec"
    );
}
