use super::*;
use serde_json::{Value, json};

/// A tree of directories and files with the names of a resctrl file system.
struct Fake(PathBuf);

impl Fake {
    fn new(test: &str) -> Self {
        let root = std::env::temp_dir().join(format!("resctrl-{}-{test}", std::process::id()));
        let files = [
            ("schemata", "    L3:0=fffff;1=fffff\n    MB:0=100;1=100\n"),
            ("info/last_cmd_status", "ok\n"),
            ("info/L3/cbm_mask", "fffff\n"),
            ("info/L3/min_cbm_bits", "1\n"),
            ("info/L3/num_closids", "16\n"),
            ("info/MB/bandwidth_gran", "10\n"),
            ("info/MB/delay_linear", "1\n"),
            ("info/MB/min_bandwidth", "10\n"),
            ("info/MB/num_closids", "8\n"),
            (
                "info/L3_MON/mon_features",
                "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n",
            ),
            ("gold/schemata", "L3:0=ff;1=ff\n"),
            ("gold/mon_groups/x/tasks", ""),
        ];
        let fake = Fake(root);
        files.iter().for_each(|(path, text)| fake.write(path, text));
        fake
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap()
    }

    fn has(&self, path: &str) -> bool {
        self.0.join(path).exists()
    }

    fn make(&self, section: Value) -> Result<Group> {
        let plan = plan(section)?;
        let group = Resctrl {
            root: self.0.clone(),
        }
        .group(&plan, "id")?;
        group.make(&plan).map(|()| group)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn plan(section: Value) -> Result<Plan> {
    let config = json!({ "ociVersion": "1.3.0", "linux": { "intelRdt": section } });
    let spec = crate::config::parse_spec(config.to_string().as_bytes())?;
    Plan::new(spec.linux().as_ref().unwrap().intel_rdt().as_ref().unwrap())
}

#[test]
fn a_class_of_its_own_has_the_containers_name_and_goes_with_it() {
    let fake = Fake::new("own");
    let group = fake
        .make(json!({ "l3CacheSchema": "L3:0=f;1=f0\nMB:0=1", "memBwSchema": "MB:0=20;1=70", "schemata": ["L3:0=7"] }))
        .unwrap();
    assert_eq!(
        fake.read("id/schemata"),
        "L3:0=f;1=f0\nMB:0=20;1=70\nL3:0=7\n"
    );
    group.add(77).unwrap();
    assert_eq!(fake.read("id/tasks"), "77");
    group.update(Some("L3:0=1"), None).unwrap();
    assert_eq!(fake.read("id/schemata"), "L3:0=1\n");
    // A kernel's directory has files of its own that need no removal.
    fs::remove_file(fake.0.join("id/tasks")).unwrap();
    fs::remove_file(fake.0.join("id/schemata")).unwrap();
    group.remove().unwrap();
    assert!(!fake.has("id"));
    group.remove().unwrap();
}

#[test]
fn a_class_that_is_named_stays() {
    let fake = Fake::new("named");
    let group = fake
        .make(json!({ "closID": "gold", "l3CacheSchema": "L3:0=ff;1=ff" }))
        .unwrap();
    group.add(78).unwrap();
    group.remove().unwrap();
    assert_eq!(fake.read("gold/tasks"), "78");
    assert!(fake.make(json!({ "closID": "gold" })).is_ok());
    let error = |section| fake.make(section).unwrap_err().to_string();
    let other = error(json!({ "closID": "gold", "schemata": ["L3:0=1;1=1"] }));
    assert!(other.contains("are not \"L3:0=1;1=1\""), "{other}");
    assert_eq!(
        fake.read("gold/schemata"),
        "L3:0=ff;1=ff\n",
        "it is not changed"
    );
    let missing = error(json!({ "closID": "silver" }));
    assert!(
        missing.contains("\"silver\" does not exist") && !fake.has("silver"),
        "{missing}"
    );
    fake.make(json!({ "closID": "silver", "memBwSchema": "MB:0=50" }))
        .unwrap();
    assert_eq!(fake.read("silver/schemata"), "MB:0=50\n");
    let default = fake.make(json!({ "closID": "/" })).unwrap();
    default.add(5).unwrap();
    default.remove().unwrap();
    assert_eq!(fake.read("tasks"), "5");
}

#[test]
fn nothing_is_written_without_a_schema() {
    let fake = Fake::new("nothing");
    fake.make(json!({})).unwrap();
    assert!(fake.has("id") && !fake.has("id/schemata"));
    let error = fake.make(json!({})).unwrap_err().to_string();
    assert!(error.contains("exists already"), "{error}");
}

#[test]
fn a_monitoring_group_goes_with_the_container() {
    let fake = Fake::new("monitoring");
    for section in [
        json!({ "closID": "gold", "enableMonitoring": true }),
        json!({ "closID": "gold", "enableCMT": true }),
        json!({ "closID": "gold", "enableMBM": true }),
    ] {
        let group = fake.make(section).unwrap();
        group.add(79).unwrap();
        assert_eq!(fake.read("gold/mon_groups/id/tasks"), "79");
        fs::remove_file(fake.0.join("gold/mon_groups/id/tasks")).unwrap();
        group.remove().unwrap();
        assert!(!fake.has("gold/mon_groups/id") && fake.has("gold/mon_groups/x"));
    }
}

#[test]
fn statistics_are_runcs() {
    let fake = Fake::new("stats");
    let group = fake
        .make(json!({ "closID": "gold", "enableMonitoring": true }))
        .unwrap();
    for (cache, occupancy) in [("mon_L3_00", "1000"), ("mon_L3_01", "Unavailable")] {
        for (name, value) in [
            ("llc_occupancy", occupancy),
            ("mbm_total_bytes", "20"),
            ("mbm_local_bytes", "10"),
        ] {
            fake.write(
                &format!("gold/mon_groups/id/mon_data/{cache}/{name}"),
                value,
            );
        }
    }
    let stats = serde_json::to_value(group.stats().unwrap()).unwrap();
    let expected = json!({
        "l3_cache_info": { "cbm_mask": "fffff", "min_cbm_bits": 1, "num_closids": 16 },
        "l3_cache_schema_root": "L3:0=fffff;1=fffff",
        "l3_cache_schema": "L3:0=ff;1=ff",
        "mem_bw_info": { "bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 10, "num_closids": 8 },
        "mem_bw_schema_root": "MB:0=100;1=100",
        "mbm_stats": [{ "mbm_total_bytes": 20, "mbm_local_bytes": 10 }, { "mbm_total_bytes": 20, "mbm_local_bytes": 10 }],
        "cmt_stats": [{ "llc_occupancy": 1000 }, {}],
    });
    assert_eq!(stats, expected);
}

#[test]
fn refused_before_anything_is_made() {
    let fake = Fake::new("refused");
    fs::remove_dir_all(fake.0.join("info/MB")).unwrap();
    for (section, words) in [
        (
            json!({ "memBwSchema": "MB:0=20" }),
            "Intel RDT/MBA is not enabled",
        ),
        (
            json!({ "memBwSchema": "20" }),
            "linux.intelRdt.memBwSchema: ",
        ),
        (
            json!({ "memBwSchema": "MB:0=1\nL3:0=1" }),
            "linux.intelRdt.memBwSchema: ",
        ),
        (json!({ "closID": "../x" }), "linux.intelRdt.closID: "),
        (json!({ "closID": ".." }), "linux.intelRdt.closID: "),
    ] {
        let error = fake.make(section).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(!fake.has("id"));
}
