//! Many commands at once.

use std::sync::Barrier;
use std::thread;

use runtime_tests::{Container, is_runc, requires};

#[test]
fn sixty_four_creates_of_one_id_have_one_winner() {
    requires!(
        !is_runc(),
        "runc 1.1 has two winners at times, and 1.3 tells the others of a directory"
    );
    let c = Container::idle();
    c.write_config();
    let bundle = c.bundle().to_string_lossy().into_owned();
    let barrier = Barrier::new(64);
    let outputs: Vec<_> = thread::scope(|scope| {
        let all: Vec<_> = (0..64)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    c.runtime(&["create", "--bundle", &bundle, &c.id])
                })
            })
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let winners = outputs.iter().filter(|output| output.code == 0).count();
    assert_eq!(winners, 1);
    for output in outputs.iter().filter(|output| output.code != 0) {
        assert_eq!(output.code, 1, "{output:?}");
        assert!(
            output
                .message()
                .contains("container with given ID already exists"),
            "{output:?}"
        );
    }
    assert_eq!(c.status(), "created");
    c.start().ok();
    assert_eq!(c.status(), "running");
}

#[test]
fn many_containers_live_side_by_side() {
    let all: Vec<Container> = thread::scope(|scope| {
        let running: Vec<_> = (0..16)
            .map(|n| {
                scope.spawn(move || {
                    let c = Container::new(&format!("echo {n}; sleep 1000000"));
                    c.run_detached();
                    c
                })
            })
            .collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for (n, c) in all.iter().enumerate() {
        c.wait_to_say(&format!("{n}\n"));
        assert_eq!(c.exec("hostname").ok(), "inside\n");
    }
}

#[test]
fn starts_and_deletes_at_once_leave_one_truth() {
    for _ in 0..4 {
        let c = Container::idle();
        c.create().ok();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| c.start());
                scope.spawn(|| c.delete_force());
                scope.spawn(|| c.runtime(&["state", &c.id]));
            }
        });
        c.delete_force().ok();
        c.assert_nothing_left();
    }
}
