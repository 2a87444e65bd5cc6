//! The messages of containerd's services, written down from its `.proto` files field by field.
//!
//! Only fields that something reads or fills are here: protobuf passes over what it does not know. A field keeps its number for
//! ever, so there is nothing to generate anew; a new field is one line.

#![allow(missing_docs)] // The .proto files explain the fields.

pub(crate) mod bootstrap;
pub(crate) mod events;
pub(crate) mod options;
pub(crate) mod task;
pub(crate) mod v1;
pub(crate) mod v2;

use std::time::SystemTime;

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Any {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

impl Any {
    /// A message by its full name.
    pub(crate) fn new(name: &str, message: &impl prost::Message) -> Any {
        Any {
            type_url: name.to_owned(),
            value: message.encode_to_vec(),
        }
    }

    /// The full name of what is in it; in front of it may stand the host of a type server.
    pub(crate) fn name(&self) -> &str {
        self.type_url
            .rsplit_once('/')
            .map_or(&self.type_url, |(_, name)| name)
    }
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}

impl Timestamp {
    pub(crate) fn now() -> Timestamp {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp {
            seconds: since.as_secs() as i64,
            nanos: since.subsec_nanos() as i32,
        }
    }
}

/// `google.protobuf.Empty`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Empty {}

/// `ttrpc.Request`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Request {
    #[prost(string, tag = "1")]
    pub(crate) service: String,
    #[prost(string, tag = "2")]
    pub(crate) method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    pub(crate) timeout_nano: i64,
}

/// `ttrpc.Response`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Response {
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) payload: Vec<u8>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}
