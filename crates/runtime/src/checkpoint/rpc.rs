//! What is said to `criu swrk`, as far as it is used: criu's `images/rpc.proto`, whose names these are. A field that is not `optional`
//! or `required` is left out when it is false, which is what criu takes it for then.

/// `criu_req_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Kind {
    Empty = 0,
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
    Version = 10,
}

/// `criu_req`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Request {
    #[prost(enumeration = "Kind", required, tag = "1")]
    pub(super) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) opts: Option<Opts>,
    #[prost(bool, tag = "3")]
    pub(super) notify_success: bool,
    #[prost(bool, tag = "4")]
    pub(super) keep_open: bool,
    #[prost(message, optional, tag = "5")]
    pub(super) features: Option<Features>,
}

/// `criu_opts`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Opts {
    #[prost(int32, required, tag = "1")]
    pub(super) images_dir_fd: i32,
    #[prost(int32, optional, tag = "2")]
    pub(super) pid: Option<i32>,
    #[prost(bool, tag = "3")]
    pub(super) leave_running: bool,
    #[prost(bool, tag = "4")]
    pub(super) ext_unix_sk: bool,
    #[prost(bool, tag = "5")]
    pub(super) tcp_established: bool,
    #[prost(bool, tag = "6")]
    pub(super) evasive_devices: bool,
    #[prost(bool, tag = "7")]
    pub(super) shell_job: bool,
    #[prost(bool, tag = "8")]
    pub(super) file_locks: bool,
    #[prost(int32, tag = "9")]
    pub(super) log_level: i32,
    #[prost(string, tag = "10")]
    pub(super) log_file: String,
    #[prost(message, optional, tag = "11")]
    pub(super) ps: Option<PageServer>,
    #[prost(bool, tag = "12")]
    pub(super) notify_scripts: bool,
    #[prost(string, tag = "13")]
    pub(super) root: String,
    #[prost(string, optional, tag = "14")]
    pub(super) parent_img: Option<String>,
    #[prost(bool, tag = "15")]
    pub(super) track_mem: bool,
    #[prost(bool, tag = "16")]
    pub(super) auto_dedup: bool,
    #[prost(int32, optional, tag = "17")]
    pub(super) work_dir_fd: Option<i32>,
    #[prost(bool, tag = "18")]
    pub(super) link_remap: bool,
    #[prost(message, repeated, tag = "23")]
    pub(super) ext_mnt: Vec<ExternalMount>,
    #[prost(bool, tag = "24")]
    pub(super) manage_cgroups: bool,
    #[prost(message, repeated, tag = "25")]
    pub(super) cg_root: Vec<CgroupRoot>,
    #[prost(bool, tag = "26")]
    pub(super) rst_sibling: bool,
    #[prost(message, repeated, tag = "27")]
    pub(super) inherit_fd: Vec<InheritFd>,
    #[prost(int32, optional, tag = "34")]
    pub(super) manage_cgroups_mode: Option<i32>,
    #[prost(string, repeated, tag = "37")]
    pub(super) external: Vec<String>,
    #[prost(uint32, tag = "38")]
    pub(super) empty_ns: u32,
    #[prost(message, repeated, tag = "39")]
    pub(super) join_ns: Vec<JoinNamespace>,
    #[prost(string, optional, tag = "44")]
    pub(super) freeze_cgroup: Option<String>,
    #[prost(bool, tag = "46")]
    pub(super) tcp_skip_in_flight: bool,
    #[prost(bool, tag = "48")]
    pub(super) lazy_pages: bool,
    #[prost(bool, tag = "50")]
    pub(super) orphan_pts_master: bool,
    #[prost(string, optional, tag = "51")]
    pub(super) config_file: Option<String>,
    #[prost(bool, tag = "52")]
    pub(super) tcp_close: bool,
    #[prost(string, optional, tag = "53")]
    pub(super) lsm_profile: Option<String>,
    #[prost(string, optional, tag = "63")]
    pub(super) lsm_mount_context: Option<String>,
    #[prost(int32, optional, tag = "64")]
    pub(super) network_lock: Option<i32>,
}

/// `criu_page_server_info`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PageServer {
    #[prost(string, tag = "1")]
    pub(super) address: String,
    #[prost(int32, tag = "2")]
    pub(super) port: i32,
}

/// `ext_mount_map`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ExternalMount {
    #[prost(string, required, tag = "1")]
    pub(super) key: String,
    #[prost(string, required, tag = "2")]
    pub(super) val: String,
}

/// `cgroup_root`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CgroupRoot {
    #[prost(string, required, tag = "1")]
    pub(super) ctrl: String,
    #[prost(string, required, tag = "2")]
    pub(super) path: String,
}

/// `inherit_fd`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InheritFd {
    #[prost(string, required, tag = "1")]
    pub(super) key: String,
    #[prost(int32, required, tag = "2")]
    pub(super) fd: i32,
}

/// `join_namespace`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct JoinNamespace {
    #[prost(string, required, tag = "1")]
    pub(super) ns: String,
    #[prost(string, required, tag = "2")]
    pub(super) ns_file: String,
}

/// `criu_features`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Features {
    #[prost(bool, tag = "1")]
    pub(super) mem_track: bool,
    #[prost(bool, tag = "2")]
    pub(super) lazy_pages: bool,
}

/// `criu_resp`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Response {
    #[prost(enumeration = "Kind", required, tag = "1")]
    pub(super) kind: i32,
    #[prost(bool, required, tag = "2")]
    pub(super) success: bool,
    #[prost(message, optional, tag = "5")]
    pub(super) notify: Option<Notify>,
    #[prost(int32, tag = "7")]
    pub(super) cr_errno: i32,
    #[prost(message, optional, tag = "8")]
    pub(super) features: Option<Features>,
    #[prost(string, tag = "9")]
    pub(super) cr_errmsg: String,
    #[prost(message, optional, tag = "10")]
    pub(super) version: Option<Version>,
}

/// `criu_notify`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Notify {
    #[prost(string, tag = "1")]
    pub(super) script: String,
    #[prost(int32, tag = "2")]
    pub(super) pid: i32,
}

/// `criu_version`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
pub(super) struct Version {
    #[prost(int32, required, tag = "1")]
    pub(super) major: i32,
    #[prost(int32, required, tag = "2")]
    pub(super) minor: i32,
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn requests_have_crius_bytes() {
        let request = Request {
            kind: Kind::Version as i32,
            keep_open: true,
            ..Request::default()
        };
        assert_eq!(request.encode_to_vec(), [0x08, 10, 0x20, 1]);
        // Zero is a descriptor and a mode: required and optional fields are there with it.
        let opts = Opts {
            manage_cgroups_mode: Some(0),
            ..Opts::default()
        };
        assert_eq!(opts.encode_to_vec(), [0x08, 0, 0x90, 0x02, 0]);
    }

    #[test]
    fn answers_are_read() {
        let bytes = [
            0x08, 6, 0x10, 1, 0x2a, 6, 0x0a, 2, b'u', b'p', 0x10, 7, 0x58, 1,
        ];
        let response = Response::decode(&bytes[..]).unwrap();
        assert_eq!(response.kind(), Kind::Notify);
        let notify = response.notify.unwrap();
        assert_eq!((&*notify.script, notify.pid), ("up", 7));
        assert!(Response::decode(&[0x08][..]).is_err());
        let one = Version {
            major: 3,
            minor: 16,
        };
        assert!(one < Version { major: 4, minor: 0 });
    }
}
