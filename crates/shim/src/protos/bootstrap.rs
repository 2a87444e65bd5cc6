//! containerd `runtime/bootstrap/v1/bootstrap.proto` and `types/introspection.proto`: what is said on standard input and output.

use super::Any;

/// `RuntimeVersion` of `types/introspection.proto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RuntimeVersion {
    #[prost(string, tag = "1")]
    pub(crate) version: String,
    #[prost(string, tag = "2")]
    pub(crate) revision: String,
}

/// `RuntimeInfo` of `types/introspection.proto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RuntimeInfo {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) version: Option<RuntimeVersion>,
    #[prost(message, optional, tag = "3")]
    pub(crate) options: Option<Any>,
    #[prost(message, optional, tag = "4")]
    pub(crate) features: Option<Any>,
}

/// `BootstrapParams`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BootstrapParams {
    #[prost(string, tag = "1")]
    pub(crate) instance_id: String,
    #[prost(string, tag = "2")]
    pub(crate) namespace: String,
    #[prost(string, tag = "4")]
    pub(crate) containerd_version: String,
    #[prost(string, tag = "5")]
    pub(crate) containerd_ttrpc_address: String,
    #[prost(string, tag = "6")]
    pub(crate) containerd_grpc_address: String,
    #[prost(string, tag = "7")]
    pub(crate) containerd_binary: String,
    #[prost(message, repeated, tag = "8")]
    pub(crate) extensions: Vec<Extension>,
    #[prost(string, tag = "9")]
    pub(crate) socket_dir: String,
}

/// `Extension`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Extension {
    #[prost(message, optional, tag = "1")]
    pub(crate) value: Option<Any>,
}

/// `BootstrapResult`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BootstrapResult {
    #[prost(int32, tag = "1")]
    pub(crate) version: i32,
    #[prost(string, tag = "2")]
    pub(crate) address: String,
    #[prost(string, tag = "3")]
    pub(crate) protocol: String,
}
