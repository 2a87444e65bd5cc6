//! containerd `types/runc/options/oci.proto` and `types/runtimeoptions/v1/api.proto`.

/// `Options` of `types/runc/options/oci.proto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Options {
    #[prost(bool, tag = "1")]
    pub(crate) no_pivot_root: bool,
    #[prost(bool, tag = "2")]
    pub(crate) no_new_keyring: bool,
    #[prost(string, tag = "3")]
    pub(crate) shim_cgroup: String,
    #[prost(uint32, tag = "4")]
    pub(crate) io_uid: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) io_gid: u32,
    #[prost(string, tag = "6")]
    pub(crate) binary_name: String,
    #[prost(string, tag = "7")]
    pub(crate) root: String,
    #[prost(bool, tag = "9")]
    pub(crate) systemd_cgroup: bool,
    #[prost(string, tag = "10")]
    pub(crate) criu_image_path: String,
    #[prost(string, tag = "11")]
    pub(crate) criu_work_path: String,
    #[prost(string, tag = "12")]
    pub(crate) task_api_address: String,
    #[prost(uint32, tag = "13")]
    pub(crate) task_api_version: u32,
}

/// `CheckpointOptions` of `types/runc/options/oci.proto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CheckpointOptions {
    #[prost(bool, tag = "1")]
    pub(crate) exit: bool,
    #[prost(bool, tag = "2")]
    pub(crate) open_tcp: bool,
    #[prost(bool, tag = "3")]
    pub(crate) external_unix_sockets: bool,
    #[prost(bool, tag = "4")]
    pub(crate) terminal: bool,
    #[prost(bool, tag = "5")]
    pub(crate) file_locks: bool,
    #[prost(string, repeated, tag = "6")]
    pub(crate) empty_namespaces: Vec<String>,
    #[prost(string, tag = "7")]
    pub(crate) cgroups_mode: String,
    #[prost(string, tag = "8")]
    pub(crate) image_path: String,
    #[prost(string, tag = "9")]
    pub(crate) work_path: String,
}

/// `ProcessDetails` of `types/runc/options/oci.proto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ProcessDetails {
    #[prost(string, tag = "1")]
    pub(crate) exec_id: String,
}

/// `runtimeoptions.v1.Options`: what containerd sends to a shim whose name is not that of runc's.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RuntimeOptions {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(string, tag = "2")]
    pub(crate) config_path: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) config_body: Vec<u8>,
}
