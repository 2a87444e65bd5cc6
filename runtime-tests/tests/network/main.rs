//! Behaviours of networks, each on a machine of its own: a network namespace with a neighbour, and namespaces that stand for
//! containers.

mod crash;
mod firewalls;
mod machine;
mod others;
mod publish;
mod scale;
