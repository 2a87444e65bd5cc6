//! The same images by umoci.
use crate::Test;
pub(crate) const TESTS: &[Test] = &[];
