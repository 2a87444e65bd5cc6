//! podman, buildah and umoci with the runtime under test, all without a network beyond the machine.

mod buildah_umoci;
mod podman;
