//! cgroups `cgroup2/stats/metrics.proto`, what a runtime fills in of it.

#![allow(missing_docs)] // Named after the kernel's files.

/// `Metrics`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Metrics {
    #[prost(message, optional, tag = "1")]
    pub(crate) pids: Option<PidsStat>,
    #[prost(message, optional, tag = "2")]
    pub(crate) cpu: Option<CpuStat>,
    #[prost(message, optional, tag = "4")]
    pub(crate) memory: Option<MemoryStat>,
    #[prost(message, optional, tag = "6")]
    pub(crate) io: Option<IoStat>,
    #[prost(message, repeated, tag = "7")]
    pub(crate) hugetlb: Vec<HugeTlbStat>,
    #[prost(message, optional, tag = "8")]
    pub(crate) memory_events: Option<MemoryEvents>,
}

/// `PSIData`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PsiData {
    #[prost(double, tag = "1")]
    pub(crate) avg10: f64,
    #[prost(double, tag = "2")]
    pub(crate) avg60: f64,
    #[prost(double, tag = "3")]
    pub(crate) avg300: f64,
    #[prost(uint64, tag = "4")]
    pub(crate) total: u64,
}

/// `PSIStats`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PsiStats {
    #[prost(message, optional, tag = "1")]
    pub(crate) some: Option<PsiData>,
    #[prost(message, optional, tag = "2")]
    pub(crate) full: Option<PsiData>,
}

/// `PidsStat`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PidsStat {
    #[prost(uint64, tag = "1")]
    pub(crate) current: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) limit: u64,
}

/// `CPUStat`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CpuStat {
    #[prost(uint64, tag = "1")]
    pub(crate) usage_usec: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) user_usec: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) system_usec: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) nr_periods: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) nr_throttled: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) throttled_usec: u64,
    #[prost(message, optional, tag = "7")]
    pub(crate) psi: Option<PsiStats>,
    #[prost(uint64, tag = "8")]
    pub(crate) nr_bursts: u64,
    #[prost(uint64, tag = "9")]
    pub(crate) burst_usec: u64,
}

/// `MemoryStat`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MemoryStat {
    #[prost(uint64, tag = "1")]
    pub(crate) anon: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) file: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) kernel_stack: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) slab: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) sock: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) shmem: u64,
    #[prost(uint64, tag = "7")]
    pub(crate) file_mapped: u64,
    #[prost(uint64, tag = "8")]
    pub(crate) file_dirty: u64,
    #[prost(uint64, tag = "9")]
    pub(crate) file_writeback: u64,
    #[prost(uint64, tag = "10")]
    pub(crate) anon_thp: u64,
    #[prost(uint64, tag = "11")]
    pub(crate) inactive_anon: u64,
    #[prost(uint64, tag = "12")]
    pub(crate) active_anon: u64,
    #[prost(uint64, tag = "13")]
    pub(crate) inactive_file: u64,
    #[prost(uint64, tag = "14")]
    pub(crate) active_file: u64,
    #[prost(uint64, tag = "15")]
    pub(crate) unevictable: u64,
    #[prost(uint64, tag = "16")]
    pub(crate) slab_reclaimable: u64,
    #[prost(uint64, tag = "17")]
    pub(crate) slab_unreclaimable: u64,
    #[prost(uint64, tag = "18")]
    pub(crate) pgfault: u64,
    #[prost(uint64, tag = "19")]
    pub(crate) pgmajfault: u64,
    #[prost(uint64, tag = "20")]
    pub(crate) workingset_refault: u64,
    #[prost(uint64, tag = "21")]
    pub(crate) workingset_activate: u64,
    #[prost(uint64, tag = "22")]
    pub(crate) workingset_nodereclaim: u64,
    #[prost(uint64, tag = "23")]
    pub(crate) pgrefill: u64,
    #[prost(uint64, tag = "24")]
    pub(crate) pgscan: u64,
    #[prost(uint64, tag = "25")]
    pub(crate) pgsteal: u64,
    #[prost(uint64, tag = "26")]
    pub(crate) pgactivate: u64,
    #[prost(uint64, tag = "27")]
    pub(crate) pgdeactivate: u64,
    #[prost(uint64, tag = "28")]
    pub(crate) pglazyfree: u64,
    #[prost(uint64, tag = "29")]
    pub(crate) pglazyfreed: u64,
    #[prost(uint64, tag = "30")]
    pub(crate) thp_fault_alloc: u64,
    #[prost(uint64, tag = "31")]
    pub(crate) thp_collapse_alloc: u64,
    #[prost(uint64, tag = "32")]
    pub(crate) usage: u64,
    #[prost(uint64, tag = "33")]
    pub(crate) usage_limit: u64,
    #[prost(uint64, tag = "34")]
    pub(crate) swap_usage: u64,
    #[prost(uint64, tag = "35")]
    pub(crate) swap_limit: u64,
    #[prost(uint64, tag = "36")]
    pub(crate) max_usage: u64,
    #[prost(uint64, tag = "37")]
    pub(crate) swap_max_usage: u64,
    #[prost(message, optional, tag = "38")]
    pub(crate) psi: Option<PsiStats>,
}

/// `MemoryEvents`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MemoryEvents {
    #[prost(uint64, tag = "1")]
    pub(crate) low: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) high: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) max: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) oom: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) oom_kill: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) oom_group_kill: u64,
}

/// `IOStat`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct IoStat {
    #[prost(message, repeated, tag = "1")]
    pub(crate) usage: Vec<IoEntry>,
    #[prost(message, optional, tag = "2")]
    pub(crate) psi: Option<PsiStats>,
}

/// `IOEntry`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct IoEntry {
    #[prost(uint64, tag = "1")]
    pub(crate) major: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) minor: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) rbytes: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) wbytes: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) rios: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) wios: u64,
}

/// `HugeTlbStat`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HugeTlbStat {
    #[prost(uint64, tag = "1")]
    pub(crate) current: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) max: u64,
    #[prost(string, tag = "3")]
    pub(crate) pagesize: String,
    #[prost(uint64, tag = "4")]
    pub(crate) failcnt: u64,
}
