//! podman, Docker, buildah, umoci and containerd with the runtime under test, all without a network beyond the machine.

mod buildah_umoci;
mod containerd;
mod docker;
mod podman;
