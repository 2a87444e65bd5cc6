//! `ps` and `list`.

use runtime_tests::{Container, eventually, is_coracle, is_runc_since, requires, rootless};
use serde_json::{Value, json};

#[test]
fn list_of_nothing() {
    requires!(
        !is_runc_since(1, 3),
        "runc 1.3 wants the directory of states"
    );
    let c = Container::idle();
    let table = c.runtime(&["list"]).ok();
    assert_eq!(
        table.split_whitespace().collect::<Vec<_>>(),
        ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    );
    let json = c.runtime(&["list", "-f", "json"]).ok();
    assert!(
        json == "[]\n" || json == "null\n" || json == "null" || json == "[]",
        "{json:?}"
    );
    assert!(!is_coracle() || json.ends_with('\n'));
    assert_eq!(c.runtime(&["list", "-q"]).ok(), "");
}

#[test]
fn list_tells_every_container_of_its_root() {
    let a = Container::idle();
    a.run_detached();
    let b = Container::idle().beside(&a);
    b.create().ok();
    let done = Container::new("true").beside(&a);
    done.run_with(&["--keep"]).ok();
    let elsewhere = Container::idle();
    elsewhere.run_detached();

    let table = a.runtime(&["list"]).ok();
    let row = |id: &str| {
        table
            .lines()
            .find(|line| line.starts_with(&format!("{id} ")))
            .unwrap_or_else(|| panic!("{id} in {table}"))
            .to_owned()
    };
    let columns = |id: &str| {
        row(id)
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        columns(&a.id)[1..4],
        [
            a.pid().to_string(),
            "running".into(),
            a.bundle().to_string_lossy().into_owned()
        ]
    );
    assert_eq!(
        columns(&b.id)[1..3],
        [b.pid().to_string(), "created".into()]
    );
    assert_eq!(columns(&done.id)[1..3], ["0", "stopped"]);
    let owner = rootless().map_or("root", |_| "ordinary");
    assert_eq!(columns(&a.id)[5], owner);
    assert!(!table.contains(&elsewhere.id));

    let mut ids: Vec<String> = a
        .runtime(&["list", "--quiet"])
        .ok()
        .lines()
        .map(str::to_owned)
        .collect();
    ids.sort();
    let mut expected = vec![a.id.clone(), b.id.clone(), done.id.clone()];
    expected.sort();
    assert_eq!(ids, expected);

    let text = a.runtime(&["list", "--format", "json"]).ok();
    assert_eq!(text.trim_end().lines().count(), 1, "one compact array");
    let list: Vec<Value> = serde_json::from_str(&text).unwrap();
    let entry = list
        .iter()
        .find(|entry| entry["id"] == a.id.as_str())
        .unwrap();
    assert_eq!(
        (&entry["pid"], &entry["status"], &entry["owner"]),
        (&json!(a.pid()), &json!("running"), &json!(owner))
    );
}

#[test]
fn an_unknown_list_format_is_refused() {
    let c = Container::idle();
    assert_eq!(c.runtime(&["list", "-f", "yaml"]).code, 1);
}

#[test]
fn ps_json_tells_every_process() {
    let c = Container::new("sleep 1000000 & sleep 1000000 & echo ready; wait");
    c.run_detached();
    c.wait_to_say("ready\n");
    let text = c.runtime(&["ps", "--format", "json", &c.id]).ok();
    let pids: Vec<i64> = serde_json::from_str(&text).unwrap();
    assert_eq!(pids.len(), 3, "{text}");
    assert!(pids.contains(&c.pid()));
}

#[test]
fn ps_table_passes_its_arguments_to_ps() {
    let c = Container::new("echo ready; exec sleep 1000000");
    c.run_detached();
    c.wait_to_say("ready\n");
    eventually("sleep", || {
        c.runtime(&["ps", &c.id])
            .ok()
            .contains("sleep 1000000")
            .then_some(())
    });
    let table = c.runtime(&["ps", &c.id]).ok();
    assert!(table.lines().next().unwrap().contains("PID"), "{table}");
    assert!(
        table.contains("sleep 1000000") && table.contains(&c.pid().to_string()),
        "{table}"
    );
    assert_eq!(
        table.lines().count(),
        2,
        "only the container's processes: {table}"
    );
    let table = c.runtime(&["ps", &c.id, "-e", "-o", "pid,comm"]).ok();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let pid = c.pid().to_string();
    assert_eq!(rows, [vec!["PID", "COMMAND"], vec![pid.as_str(), "sleep"]]);
}

#[test]
fn ps_of_a_missing_container_is_refused() {
    let c = Container::idle();
    c.runtime(&["ps", &c.id])
        .fails_with(1, "container does not exist");
}

#[test]
fn ps_needs_a_pid_column() {
    let c = Container::idle();
    c.run_detached();
    assert_eq!(c.runtime(&["ps", &c.id, "-o", "comm"]).code, 1);
    assert_eq!(c.runtime(&["ps", "-f", "yaml", &c.id]).code, 1);
}
