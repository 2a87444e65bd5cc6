//! One row for each property of config.json on Linux. docs/SPEC.md is made of it.

/// A property, or several: `{a,b}` stands for either, `[]` for an entry of a list, `*` for one of a map.
pub(crate) struct Row {
    pub property: &'static str,
    /// How it is observed, from inside the container where nothing else is said.
    pub seen: &'static str,
    /// A test of `runtime-tests/tests/behaviours`, as `file::name`, of another suite, as `suite/file::name`, or of a crate, as
    /// `crate/src/file.rs::name`.
    pub test: &'static str,
    /// What the others do, where it differs.
    pub others: &'static str,
}

/// The same in all of them, as far as is known.
const fn row(property: &'static str, seen: &'static str, test: &'static str) -> Row {
    Row {
        property,
        seen,
        test,
        others: "",
    }
}

const fn unlike(
    property: &'static str,
    seen: &'static str,
    test: &'static str,
    others: &'static str,
) -> Row {
    Row {
        property,
        seen,
        test,
        others,
    }
}

pub(crate) const CONFIG: &[Row] = &[
    row(
        "ociVersion",
        "1.x is taken, anything else is an error that names the field",
        "bad_input::the_root_and_the_mounts",
    ),
    row(
        "root.path",
        "relative to the bundle, or absolute; nothing of the host is to be seen",
        "rootfs::the_root_is_the_bundles_and_nothing_of_the_host_is_seen",
    ),
    row(
        "root.readonly",
        "writing is refused, mounts on it stay writable",
        "rootfs::a_read_only_root_refuses_writing",
    ),
    row(
        "mounts[].destination",
        "made where missing, resolved inside the root",
        "mounts::symlinks_in_the_destination_stay_inside_the_root",
    ),
    row(
        "mounts[].source",
        "relative to the bundle; a missing one is named",
        "mounts::a_relative_bind_source_lies_in_the_bundle",
    ),
    row(
        "mounts[].type",
        "/proc/self/mountinfo; a bind by its options",
        "mounts::the_usual_file_systems_are_what_they_say",
    ),
    row(
        "mounts[].options[]",
        "every flag in /proc/self/mountinfo, set and cleared",
        "mounts::every_mount_flag_is_set",
    ),
    unlike(
        "mounts[].options[]",
        "`rro` and the other recursive attributes: writing below is refused",
        "mounts::recursive_read_only",
        "crun lacks some mount options",
    ),
    unlike(
        "mounts[].options[]",
        "`tmpcopyup`: content, owners, times, links, holes, extended attributes",
        "mounts::tmpfs_content_keeps_times_and_extended_attributes",
        "runc 1.1 copies links and holes as files; youki lacks it",
    ),
    row(
        "mounts[].options[]",
        "`shared`, `rslave`, …: whether a mount of the other side appears",
        "mounts::propagation_of_a_mount",
    ),
    unlike(
        "mounts[].options[]",
        "`idmap`, `ridmap`: owners of files, of the mounts below too",
        "idmapped::recursion_is_for_ridmap",
        "crun lacks `ridmap`; youki has no idmapped mounts",
    ),
    unlike(
        "mounts[].{uidMappings,gidMappings}[].{containerID,hostID,size}",
        "owners of files, with and without a user namespace",
        "idmapped::without_a_user_namespace_by_mappings_of_their_own",
        "runc maps binds only; youki has no idmapped mounts",
    ),
    unlike(
        "mounts[].{uidMappings,gidMappings}[].{containerID,hostID,size}",
        "the same of a new tmpfs; an error where the kernel cannot",
        "idmapped::a_new_file_system_with_mapped_ids",
        "runc maps binds only; youki has no idmapped mounts",
    ),
    row(
        "process.terminal",
        "standard input is a terminal of the container's own devpts",
        "terminal::a_console_socket_receives_the_terminal",
    ),
    row(
        "process.consoleSize.{height,width}",
        "`stty size`",
        "terminal::console_size_of_the_configuration",
    ),
    row(
        "process.cwd",
        "`pwd`; made where missing",
        "process::working_directory",
    ),
    row(
        "process.env[]",
        "`env`; an entry without `=` is an error",
        "process::environment_is_as_configured",
    ),
    row(
        "process.args[]",
        "what runs; the program is found by the container's PATH",
        "process::the_program_is_found_by_the_containers_path",
    ),
    row(
        "process.rlimits[].{type,soft,hard}",
        "/proc/self/limits",
        "process::resource_limits",
    ),
    row(
        "process.apparmorProfile",
        "/proc/self/attr/current, and what it denies is denied (in the guests, which have AppArmor)",
        "lsm::an_apparmor_profile_holds_for_the_process",
    ),
    row(
        "process.selinuxLabel",
        "/proc/self/attr/current (in the guests with SELinux)",
        "lsm::selinux_labels_the_process_and_the_containers_file_systems",
    ),
    row(
        "process.capabilities.{bounding,effective,permitted,inheritable}[]",
        "/proc/self/status",
        "capabilities::root_has_exactly_the_configured_sets",
    ),
    row(
        "process.capabilities.ambient[]",
        "/proc/self/status, of another user too",
        "capabilities::ambient_capabilities_reach_another_user",
    ),
    row(
        "process.noNewPrivileges",
        "/proc/self/status",
        "process::no_new_privs",
    ),
    row(
        "process.oomScoreAdj",
        "/proc/self/oom_score_adj; without one the caller's stays",
        "process::oom_score_adj",
    ),
    unlike(
        "process.scheduler.{policy,nice}",
        "/proc/1/stat",
        "process::scheduler_and_io_priority",
        "runc 1.1 lacks it",
    ),
    unlike(
        "process.scheduler.{runtime,deadline,period}",
        "refused together with a cpuset, in runc's words",
        "affinity::a_deadline_scheduler_and_a_cpuset_exclude_each_other",
        "runc 1.1 lacks it",
    ),
    row(
        "process.scheduler.priority",
        "for SCHED_FIFO and SCHED_RR only",
        "runtime/src/scheduling.rs::each_policy_takes_its_own_fields",
    ),
    row(
        "process.scheduler.flags[]",
        "sched_setattr(2)",
        "runtime/src/config.rs::reset_on_fork_has_the_kernel_name_too",
    ),
    unlike(
        "process.ioPriority.{class,priority}",
        "`ionice -p 1`",
        "process::scheduler_and_io_priority",
        "runc 1.1 lacks it",
    ),
    unlike(
        "process.execCPUAffinity.initial",
        "/proc/PID/status of the runtime",
        "affinity::the_initial_affinity_is_the_runtimes",
        "runc 1.1 lacks it",
    ),
    unlike(
        "process.execCPUAffinity.final",
        "/proc/self/status of what is executed",
        "affinity::the_final_affinity_is_the_executed_processs",
        "runc 1.1 lacks it",
    ),
    row(
        "process.user.{uid,gid,additionalGids[]}",
        "`id`",
        "process::user_and_groups",
    ),
    row(
        "process.user.umask",
        "`umask`, and the mode of a new file",
        "process::umask",
    ),
    row(
        "hostname",
        "`hostname`; needs a UTS namespace",
        "namespaces::init_is_process_1_with_its_own_host_name",
    ),
    row(
        "domainname",
        "/proc/sys/kernel/domainname",
        "namespaces::domain_name",
    ),
    row(
        "hooks.{prestart,createRuntime,createContainer,startContainer,poststart,poststop}[].path",
        "the order in which they write to a file",
        "hooks::hooks_run_in_order",
    ),
    row(
        "hooks.{prestart,createRuntime,createContainer,startContainer,poststart,poststop}[].args[]",
        "what they write",
        "hooks::hooks_run_where_they_should",
    ),
    row(
        "hooks.{prestart,createRuntime,createContainer,startContainer,poststart,poststop}[].env[]",
        "`env` in the hook: nothing else",
        "hooks::a_hook_has_only_its_own_environment",
    ),
    row(
        "hooks.{prestart,createRuntime,createContainer,startContainer,poststart,poststop}[].timeout",
        "a hook that hangs is ended with all that it has started",
        "hooks::a_hanging_hook_is_ended_by_its_timeout",
    ),
    row(
        "hooks.poststart[].path",
        "one that fails is an error, and stops the container",
        "hooks::a_failing_poststart_hook_is_an_error",
    ),
    row(
        "annotations.*",
        "`state`, and the state that hooks get",
        "state::state_tells_all_that_the_specification_and_engines_ask",
    ),
    unlike(
        "annotations.*",
        "`run.oci.keep_original_groups`: `id -G`",
        "annotations::the_callers_groups_can_be_kept",
        "crun's own; runc and youki lack it",
    ),
    unlike(
        "annotations.*",
        "`run.oci.seccomp.receiver`: the agent decides",
        "annotations::the_agents_socket_where_the_profile_names_none",
        "crun's own; runc and youki lack it",
    ),
    unlike(
        "annotations.*",
        "`run.oci.seccomp_fail_unknown_syscall`: an error that names the call",
        "annotations::an_unknown_system_call_can_be_an_error",
        "crun's own; runc and youki lack it",
    ),
    unlike(
        "annotations.*",
        "`run.oci.pidfd_receiver`: a pidfd of the container arrives",
        "annotations::a_socket_receives_the_container",
        "crun's own; runc and youki lack it",
    ),
    unlike(
        "annotations.*",
        "`run.oci.mount_context_type`: the option in /proc/self/mountinfo (in the guests with SELinux)",
        "lsm::crun_has_an_annotation_for_the_kind_of_label",
        "crun's own; runc and youki lack it",
    ),
];

pub(crate) const LINUX: &[Row] = &[
    row(
        "linux.namespaces[].type",
        "/proc/self/ns: new when asked for, shared when not",
        "namespaces::each_namespace_is_new_when_asked_for_and_shared_when_not",
    ),
    row(
        "linux.namespaces[].path",
        "/proc/self/ns; one of another kind is refused",
        "namespaces::each_namespace_can_be_joined_by_its_path",
    ),
    row(
        "linux.{uidMappings,gidMappings}[].{containerID,hostID,size}",
        "`id` inside, /proc/PID/status outside",
        "userns::root_inside_is_another_user_outside",
    ),
    row(
        "linux.timeOffsets.*.{secs,nanosecs}",
        "/proc/uptime",
        "namespaces::time_offsets",
    ),
    row(
        "linux.devices[].{type,path,major,minor,fileMode,uid,gid}",
        "`stat`, and what they answer",
        "devices::configured_devices_are_made",
    ),
    row(
        "linux.cgroupsPath",
        "/proc/self/cgroup",
        "lifecycle::cgroups_path_is_where_the_container_lives",
    ),
    row(
        "linux.cgroupsPath",
        "a cgroup that is frozen or in use is refused",
        "cgroup_setups::a_cgroup_that_somebody_lives_in",
    ),
    unlike(
        "linux.cgroupsPath",
        "the user of the container owns its cgroup where it is writable",
        "cgroups::a_writable_cgroup_belongs_to_the_user_of_the_container",
        "youki lacks it",
    ),
    row(
        "linux.resources.devices[].{allow,type,major,minor,access}",
        "opening them, on v1, hybrid and v2",
        "devices::devices_are_refused_and_allowed_on_cgroup_v2",
    ),
    row(
        "linux.resources.memory.{limit,reservation}",
        "the cgroup's files",
        "limits::memory_limits",
    ),
    row(
        "linux.resources.memory.swap",
        "the cgroup's files; on v2 without the memory",
        "limits::memory_and_swap",
    ),
    row(
        "linux.resources.memory.{kernel,kernelTCP}",
        "no error and no effect: Linux has given them up",
        "limits::kernel_memory_is_ignored",
    ),
    row(
        "linux.resources.memory.{swappiness,disableOOMKiller}",
        "the files of v1; an error on v2",
        "limits::swappiness_and_oom_disable_on_v1",
    ),
    row(
        "linux.resources.memory.useHierarchy",
        "no effect: Linux knows nothing else since 5.11",
        "cgroups/src/resources/memory.rs::v1_writes",
    ),
    unlike(
        "linux.resources.memory.checkBeforeUpdate",
        "a limit below what is in use changes nothing",
        "cgroup_setups::an_update_that_the_kernel_refuses_changes_nothing",
        "youki lacks it",
    ),
    row(
        "linux.resources.cpu.shares",
        "cpu.shares, cpu.weight",
        "limits::cpu_shares",
    ),
    row(
        "linux.resources.cpu.{quota,period}",
        "cpu.cfs_quota_us, cpu.max",
        "limits::cpu_quota_and_period",
    ),
    row(
        "linux.resources.cpu.{burst,idle}",
        "cpu.max.burst, cpu.idle",
        "limits::cpu_burst_and_idle",
    ),
    row(
        "linux.resources.cpu.{realtimeRuntime,realtimePeriod}",
        "cpu.rt_runtime_us; an error on v2",
        "cgroups/src/resources/cpu.rs::v1_writes",
    ),
    row(
        "linux.resources.cpu.{cpus,mems}",
        "/proc/self/status",
        "limits::cpuset",
    ),
    row(
        "linux.resources.blockIO.weight",
        "blkio.weight, io.bfq.weight, io.weight",
        "limits::block_io_weight",
    ),
    row(
        "linux.resources.blockIO.leafWeight",
        "blkio.leaf_weight; an error on v2",
        "cgroups/src/resources/io.rs::v1_writes",
    ),
    row(
        "linux.resources.blockIO.weightDevice[].{major,minor,weight,leafWeight}",
        "the same for a device",
        "cgroups/src/resources/io.rs::v1_writes",
    ),
    row(
        "linux.resources.blockIO.throttle{ReadBps,WriteBps,ReadIOPS,WriteIOPS}Device[].{major,minor,rate}",
        "blkio.throttle.*, io.max",
        "limits::block_io_rates",
    ),
    unlike(
        "linux.resources.hugepageLimits[].{pageSize,limit}",
        "hugetlb.*.rsvd.limit_in_bytes too",
        "limits::huge_pages",
        "crun does not limit reservations",
    ),
    row(
        "linux.resources.network.{classID,priorities[].name,priorities[].priority}",
        "net_cls.classid, net_prio.ifpriomap; an error on v2",
        "cgroups/src/resources/others.rs::network_and_rdma",
    ),
    row(
        "linux.resources.pids.limit",
        "pids.max",
        "limits::pids_limit",
    ),
    unlike(
        "linux.resources.rdma.*.{hcaHandles,hcaObjects}",
        "rdma.max; an unknown device is a clear error",
        "limits::an_unknown_rdma_device_is_a_clear_error",
        "crun and youki lack it",
    ),
    row(
        "linux.resources.unified.*",
        "the files of these names",
        "limits::unified_files_are_written_as_they_are",
    ),
    row(
        "linux.rootfsPropagation",
        "whether mounts of the host appear",
        "mounts::propagation_of_the_root",
    ),
    row(
        "linux.seccomp.defaultAction",
        "answers of system calls",
        "seccomp::a_number_above_the_profiles_highest_does_not_exist",
    ),
    row(
        "linux.seccomp.defaultErrnoRet",
        "an errno for an action that has none is refused",
        "seccomp/src/tests/refused.rs::errors_name_the_field",
    ),
    row(
        "linux.seccomp.architectures[]",
        "calls by the 32-bit entry",
        "seccomp::the_32_bit_entry_is_filtered_by_its_own_numbers",
    ),
    row(
        "linux.seccomp.flags[]",
        "seccomp(2) takes them; what is unknown is refused",
        "seccomp::every_flag_is_taken",
    ),
    unlike(
        "linux.seccomp.listenerPath",
        "an agent's answers to mkdir(2); an error without an agent",
        "seccomp_notify::the_agent_gets_the_state_and_decides",
        "runc 1.1 leaves the connection open",
    ),
    row(
        "linux.seccomp.listenerMetadata",
        "the state that the agent gets",
        "seccomp_notify::the_agent_gets_the_state_and_decides",
    ),
    row(
        "linux.seccomp.syscalls[].names[]",
        "answers of system calls; unknown names are skipped",
        "seccomp::unknown_names_are_skipped",
    ),
    row(
        "linux.seccomp.syscalls[].action",
        "answers of system calls, or the end of the process",
        "seccomp::a_call_can_end_the_process",
    ),
    row(
        "linux.seccomp.syscalls[].errnoRet",
        "the errno of a call",
        "seccomp::a_call_is_refused_with_its_own_errno",
    ),
    row(
        "linux.seccomp.syscalls[].args[].{index,value,valueTwo,op}",
        "answers by arguments",
        "seccomp::arguments_decide",
    ),
    row(
        "linux.sysctl.*",
        "/proc/sys; one of the whole machine is refused",
        "namespaces::sysctls_are_set_in_their_namespaces",
    ),
    row(
        "linux.maskedPaths[]",
        "empty files and directories",
        "masked_paths::a_masked_file_is_empty_and_a_masked_directory_too",
    ),
    row(
        "linux.readonlyPaths[]",
        "writing is refused",
        "masked_paths::read_only_paths_refuse_writing",
    ),
    row(
        "linux.mountLabel",
        "/proc/self/mountinfo and the files' labels (in the guests with SELinux)",
        "lsm::selinux_labels_the_process_and_the_containers_file_systems",
    ),
    unlike(
        "linux.netDevices.*.name",
        "`ip addr`: name, addresses, MTU, up; a clash moves nothing",
        "net_devices::a_device_comes_up_with_what_it_has",
        "runc 1.1 lacks it",
    ),
    unlike(
        "linux.memoryPolicy.{mode,nodes,flags[]}",
        "/proc/self/numa_maps",
        "memory_policy::policies_reach_the_kernel",
        "runc 1.1 lacks it",
    ),
    row(
        "linux.intelRdt.closID",
        "a tree with resctrl's names; an error without resctrl",
        "runtime/src/intel_rdt/tests.rs::a_class_that_is_named_stays",
    ),
    row(
        "linux.intelRdt.{schemata[],l3CacheSchema,memBwSchema}",
        "a tree with resctrl's names",
        "runtime/src/intel_rdt/tests.rs::a_class_of_its_own_has_the_containers_name_and_goes_with_it",
    ),
    row(
        "linux.intelRdt.{enableMonitoring,enableCMT,enableMBM}",
        "a tree with resctrl's names",
        "runtime/src/intel_rdt/tests.rs::a_monitoring_group_goes_with_the_container",
    ),
    row(
        "linux.personality.domain",
        "`uname -m`",
        "process::personality",
    ),
    unlike(
        "linux.personality.flags[]",
        "an error: the specification has none",
        "runtime/src/plan.rs::no_personality_has_flags",
        "runc ignores them with a warning",
    ),
];

/// Parsed, and of no meaning on Linux: for Windows, or where no specification has it.
pub(crate) const NOT_OF_LINUX: &[&str] = &[
    "process.commandLine",
    "process.user.username",
    "uidMappings[].containerID",
    "uidMappings[].hostID",
    "uidMappings[].size",
    "gidMappings[].containerID",
    "gidMappings[].hostID",
    "gidMappings[].size",
];

/// What the parser calls differently from the specification; the runtime bridges that.
pub(crate) const RENAMED: &[(&str, &str)] = &[
    ("linux.intelRdt.enableCmt", "linux.intelRdt.enableCMT"),
    ("linux.intelRdt.enableMbm", "linux.intelRdt.enableMBM"),
];

/// What users of the other runtimes have complained about, and what they see here instead.
pub(crate) const COMPLAINTS: &[Row] = &[
    row(
        "containers in containers are broken by hardening",
        "a container by hand, one of podman's and one with limits, inside a privileged container",
        "packages/main::in_a_container_of_our_own",
    ),
    row(
        "GPUs are lost when systemd reloads",
        "a device can still be opened after `systemctl daemon-reload`",
        "systemd::devices_survive_a_daemon_reload",
    ),
    row(
        "limits are lost when systemd reloads",
        "they are the unit's properties too",
        "systemd::limits_are_properties_and_survive_a_daemon_reload",
    ),
    row(
        "`cpu.shares` 1024 is less than the default weight",
        "cpu.weight is 100 for it",
        "limits::cpu_shares",
    ),
    row(
        "the engine's CPU affinity is inherited",
        "/proc/self/status of what is executed",
        "affinity::the_hosts_affinity_is_not_inherited_by_exec",
    ),
    row(
        "`exec` lands in the wrong cgroup, or in none, below a nested runtime",
        "it goes where the container's processes went",
        "cgroups::exec_into_a_container_that_moved_into_a_sub_cgroup",
    ),
    row(
        "many masked paths are slow",
        "hundreds of them, each masked",
        "masked_paths::many_masked_paths",
    ),
    row(
        "errors of cgroups do not help",
        "the file, and what to do",
        "cgroup_setups::processes_where_controllers_are_to_be_handed_down",
    ),
    row(
        "errors of user namespaces do not help",
        "the setting that refuses them",
        "rootless::user_namespaces_that_debian_or_ubuntu_restricts",
    ),
    row(
        "the end of what is said on a terminal is lost",
        "all of it arrives, of `run`",
        "terminal::no_output_is_lost_when_the_container_exits",
    ),
    row(
        "the same of `exec`",
        "all of it arrives",
        "terminal::no_output_of_exec_is_lost_when_it_exits",
    ),
    row(
        "hooks run in another order than is written",
        "each notes its turn",
        "hooks::hooks_run_in_order",
    ),
    row(
        "a hook that fails leaves things behind",
        "state, cgroups and mounts are as before",
        "hooks::a_failing_hook_at_creation_leaves_nothing",
    ),
    row(
        "seccomp answers EPERM for system calls that a profile does not know yet",
        "ENOSYS, so that libc falls back",
        "seccomp::a_number_above_the_profiles_highest_does_not_exist",
    ),
    row(
        "an ordinary user cannot have mounts with mapped ids, and is not told why",
        "one sentence",
        "idmapped::an_ordinary_user_is_told_that_only_root_can",
    ),
    row(
        "a vendor's kernel lacks a system call",
        "the whole life of a container under a filter that answers ENOSYS, one call at a time",
        "fallbacks::the_whole_life",
    ),
    row(
        "a bind with `rprivate` becomes recursive",
        "a mount below the source is not there",
        "mounts::rprivate_does_not_make_a_bind_recursive",
    ),
];
