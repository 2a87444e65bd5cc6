//! containerd `runtime/task/v3/shim.proto`; version 2 has the same messages in another package.

use super::{Any, Timestamp};

/// `Mount` of `types/mount.proto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Mount {
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(string, tag = "2")]
    pub(crate) source: String,
    #[prost(string, tag = "3")]
    pub(crate) target: String,
    #[prost(string, repeated, tag = "4")]
    pub(crate) options: Vec<String>,
}

/// `CreateTaskRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CreateTaskRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) bundle: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) rootfs: Vec<Mount>,
    #[prost(bool, tag = "4")]
    pub(crate) terminal: bool,
    #[prost(string, tag = "5")]
    pub(crate) stdin: String,
    #[prost(string, tag = "6")]
    pub(crate) stdout: String,
    #[prost(string, tag = "7")]
    pub(crate) stderr: String,
    #[prost(string, tag = "8")]
    pub(crate) checkpoint: String,
    #[prost(string, tag = "9")]
    pub(crate) parent_checkpoint: String,
    #[prost(message, optional, tag = "10")]
    pub(crate) options: Option<Any>,
}

/// `CreateTaskResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CreateTaskResponse {
    #[prost(uint32, tag = "1")]
    pub(crate) pid: u32,
}

/// `DeleteRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DeleteRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) exec_id: String,
}

/// `DeleteResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DeleteResponse {
    #[prost(uint32, tag = "1")]
    pub(crate) pid: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) exit_status: u32,
    #[prost(message, optional, tag = "3")]
    pub(crate) exited_at: Option<Timestamp>,
}

/// `ExecProcessRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ExecProcessRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) exec_id: String,
    #[prost(bool, tag = "3")]
    pub(crate) terminal: bool,
    #[prost(string, tag = "4")]
    pub(crate) stdin: String,
    #[prost(string, tag = "5")]
    pub(crate) stdout: String,
    #[prost(string, tag = "6")]
    pub(crate) stderr: String,
    #[prost(message, optional, tag = "7")]
    pub(crate) spec: Option<Any>,
}

/// `ResizePtyRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResizePtyRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) exec_id: String,
    #[prost(uint32, tag = "3")]
    pub(crate) width: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) height: u32,
}

/// `StateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StateRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) exec_id: String,
}

/// `StateResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StateResponse {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) bundle: String,
    #[prost(uint32, tag = "3")]
    pub(crate) pid: u32,
    #[prost(int32, tag = "4")]
    pub(crate) status: i32,
    #[prost(string, tag = "5")]
    pub(crate) stdin: String,
    #[prost(string, tag = "6")]
    pub(crate) stdout: String,
    #[prost(string, tag = "7")]
    pub(crate) stderr: String,
    #[prost(bool, tag = "8")]
    pub(crate) terminal: bool,
    #[prost(uint32, tag = "9")]
    pub(crate) exit_status: u32,
    #[prost(message, optional, tag = "10")]
    pub(crate) exited_at: Option<Timestamp>,
    #[prost(string, tag = "11")]
    pub(crate) exec_id: String,
}

/// `KillRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct KillRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) exec_id: String,
    #[prost(uint32, tag = "3")]
    pub(crate) signal: u32,
    #[prost(bool, tag = "4")]
    pub(crate) all: bool,
}

/// `CloseIORequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CloseIoRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) exec_id: String,
    #[prost(bool, tag = "3")]
    pub(crate) stdin: bool,
}

/// `PidsRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PidsRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

/// `PidsResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PidsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) processes: Vec<ProcessInfo>,
}

/// `CheckpointTaskRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CheckpointTaskRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) path: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) options: Option<Any>,
}

/// `UpdateTaskRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct UpdateTaskRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) resources: Option<Any>,
}

/// `StartRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StartRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) exec_id: String,
}

/// `StartResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StartResponse {
    #[prost(uint32, tag = "1")]
    pub(crate) pid: u32,
}

/// `WaitRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WaitRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) exec_id: String,
}

/// `WaitResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WaitResponse {
    #[prost(uint32, tag = "1")]
    pub(crate) exit_status: u32,
    #[prost(message, optional, tag = "2")]
    pub(crate) exited_at: Option<Timestamp>,
}

/// `StatsRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StatsRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

/// `StatsResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StatsResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) stats: Option<Any>,
}

/// `ConnectRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ConnectRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

/// `ConnectResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ConnectResponse {
    #[prost(uint32, tag = "1")]
    pub(crate) shim_pid: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) task_pid: u32,
    #[prost(string, tag = "3")]
    pub(crate) version: String,
}

/// `ShutdownRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ShutdownRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(bool, tag = "2")]
    pub(crate) now: bool,
}

/// `PauseRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PauseRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

/// `ResumeRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResumeRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

/// `ProcessInfo` of `types/task/task.proto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ProcessInfo {
    #[prost(uint32, tag = "1")]
    pub(crate) pid: u32,
    #[prost(message, optional, tag = "2")]
    pub(crate) info: Option<Any>,
}
