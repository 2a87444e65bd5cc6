//! What becomes of layers that are right.
use crate::Test;
pub(crate) const TESTS: &[Test] = &[];
