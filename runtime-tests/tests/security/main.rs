//! What a container, an image or a neighbour attacks a runtime with: the rows of `docs/SECURITY.md` that have their tests nowhere else.
//! The comment of each says what was taken out of Coracle once to see it fail.

mod covered;
mod races;
mod supervisors;
mod terminal;

/// `make long` asks for everything.
fn long() -> bool {
    std::env::var_os("LONG").is_some_and(|value| !value.is_empty())
}
