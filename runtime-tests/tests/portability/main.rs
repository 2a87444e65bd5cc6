//! Portability from end to end: images of all builders, the container's view under all engines, hosts that share nothing, and what
//! serverless platforms ask for.

mod application;
mod builders;
mod fleet;
mod serverless;
mod views;
