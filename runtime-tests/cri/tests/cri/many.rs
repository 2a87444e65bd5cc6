//! Many pods and many probes: nothing is left, and the shim does not grow.

use std::fs;

use runtime_tests::{long, shell};

use crate::kubelet;
use crate::kubelet::container;

#[test]
fn many_pods_leave_nothing() {
    let Some(kubelet) = kubelet() else { return };
    let start = |name: &str| {
        let pod = kubelet.pod(&kubelet.pod_config(name));
        let ids = ["one", "two"].map(|name| pod.start(container(name, &["sleep", "1000000"])));
        assert_eq!(kubelet.exec(&ids[1], &["echo", "hi"]), (0, "hi\n".into()));
        (pod, ids)
    };
    start("first").0.remove();
    let before = kubelet.containerd.inventory();
    // As many at a time as this machine surely has the memory for.
    let (rounds, together) = if long() { (10, 20) } else { (2, 5) };
    for round in 0..rounds {
        let pods: Vec<_> = (0..together)
            .map(|number| start(&format!("pod-{round}-{number}")))
            .collect();
        assert_eq!(kubelet.containerd.shims().len(), together);
        for (number, (pod, ids)) in pods.into_iter().enumerate() {
            if number % 2 == 0 {
                kubelet.stop(&ids[0], 0);
            }
            pod.remove();
        }
    }
    kubelet.containerd.wait_for_nothing_but(&before);
}

/// CVE-2022-31030, CVE-2025-64329: proved with a shim that keeps what it knows of each `exec` that is deleted.
#[test]
fn many_probes_leave_the_shim_as_it_is() {
    let Some(kubelet) = kubelet() else { return };
    let pod = kubelet.pod(&kubelet.pod_config("pod"));
    let id = pod.start(container("one", &["sleep", "1000000"]));
    let shim = kubelet.containerd.shims()[0];
    let probe = |times: usize| {
        for _ in 0..times {
            assert_eq!(kubelet.exec(&id, &["true"]).0, 0);
        }
    };
    let descriptors = || fs::read_dir(format!("/proc/{shim}/fd")).unwrap().count();
    let memory = || -> u64 {
        let line = shell(&format!("grep ^Private_Dirty /proc/{shim}/smaps_rollup"));
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let times = if long() { 10_000 } else { 150 };
    // Go's shim fills its pools for longer.
    probe(times / 3);
    let (fds, kilobytes) = (descriptors(), memory());
    probe(times);
    let grown = memory().saturating_sub(kilobytes);
    assert!(
        grown < 64.max(kilobytes / 4),
        "{grown} kB more than {kilobytes} kB after {times} probes"
    );
    assert!(
        descriptors() <= fds + 2,
        "{} descriptors, and {fds} before",
        descriptors()
    );
    let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
    assert!(
        children.split_whitespace().count() <= 2,
        "the pod's and the container's: {children}"
    );
    pod.remove();
}
