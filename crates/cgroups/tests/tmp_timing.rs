#[test]
fn t() {
    use std::time::Instant;
    let host = cgroups::Host::probe().unwrap();
    let mut v = [vec![], vec![], vec![], vec![]];
    for i in 0..60 {
        let t = Instant::now();
        let _ = cgroups::Host::probe().unwrap();
        v[0].push(t.elapsed());
        let l = cgroups::Location::resolve(&host, format!("/coracle-test-time-{i}").as_ref()).unwrap();
        let t = Instant::now();
        let c = cgroups::Cgroup::create(&l).unwrap();
        v[1].push(t.elapsed());
        let t = Instant::now();
        c.apply(&serde_json::from_str(r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"}],"pids":{"limit":5}}"#).unwrap()).or_else(|_| c.apply(&serde_json::from_str(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#).unwrap())).unwrap();
        v[2].push(t.elapsed());
        let t = Instant::now();
        c.remove().unwrap();
        v[3].push(t.elapsed());
    }
    for (n, x) in ["probe", "create", "apply", "remove"].iter().zip(&mut v) { x.sort(); println!("{n} median {:?} min {:?}", x[30], x[0]); }
}
