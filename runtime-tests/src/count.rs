//! A container that counts in memory, by which it is known again when it has been checkpointed and restored.

use crate::command::eventually;

/// A script that counts, and writes down in a directory who counts, by a random number, and how far it is.
pub fn counting(dir: &str) -> String {
    format!(
        "id=$(cat /proc/sys/kernel/random/uuid); n=0
        while :; do n=$((n + 1)); echo $id $n > {dir}/new; mv {dir}/new {dir}/count; usleep 5000; done"
    )
}

/// Waits until `read` finds what it has written down: who counts, and how far it is.
#[track_caller]
pub fn count_in(read: impl Fn() -> Option<String>) -> (String, u64) {
    let text = eventually("the container counts", || {
        read().filter(|text| text.contains(' '))
    });
    let (id, n) = text.trim().split_once(' ').expect("two words");
    (id.to_owned(), n.parse().expect("a number"))
}

/// The one that had come so far has lost nothing, and goes on.
#[track_caller]
pub fn assert_count_goes_on((id, before): (String, u64), read: impl Fn() -> Option<String>) {
    let (restored, after) = count_in(&read);
    assert_eq!(restored, id);
    assert!(after >= before, "{after} follows {before}");
    eventually("it goes on", || (count_in(&read).1 > after).then_some(()));
}
