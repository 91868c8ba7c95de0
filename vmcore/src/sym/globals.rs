//! Which type a global variable has.
//!
//! BTF tells the types of per-CPU variables, and of others only where a kernel was built so (`pahole --btf_features=global_var`).
//! For the rest this table says what a variable has been, newest first; each claim is checked against the dump's own types and
//! against the room that the variable has up to the next symbol. What fits nothing is unknown, and never guessed.

use super::Symbols;
use super::btf::{Kind, Type, TypeError, Types};

/// How a variable holds its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// It is one.
    Value,
    /// It points at one.
    Pointer,
    /// It is an array of them; how many, the symbol's size tells.
    Array,
    /// It is an array of pointers to them.
    PointerArray,
}

/// The type of a variable.
#[derive(Clone, Copy, Debug)]
pub struct Global<'a> {
    /// The type that it is, points at, or is an array of.
    pub ty: Type<'a>,
    /// Which of these.
    pub shape: Shape,
}

/// Variables and what they have been. `*` points at, `[]` is an array of.
///
/// From the declarations in the kernel's sources, 4.18 to 7.0.
const TABLE: &[(&str, &[&str])] = &[
    ("all_bdis", &["rb_root"]),
    ("bdi_list", &["list_head"]),
    ("block_class", &["class"]),
    ("btf_modules", &["list_head"]),
    ("cgrp_dfl_root", &["cgroup_root"]),
    ("class_kset", &["kset *"]),
    ("clocksource_list", &["list_head"]),
    ("console_drivers", &["console *"]),
    ("console_list", &["hlist_head"]),
    ("contig_page_data", &["pglist_data"]),
    ("cpu_number", &["int"]),
    ("crashing_cpu", &["int"]),
    ("current_task", &["task_struct *"]),
    ("devices_kset", &["kset *"]),
    ("file_lock_list", &["hlist_head"]),
    ("hugetlb_infos", &["list_head"]),
    ("hstates", &["hstate []"]),
    ("idr_layer_cache", &["kmem_cache *"]),
    ("init_cred", &["cred"]),
    ("init_mm", &["mm_struct"]),
    ("init_net", &["net"]),
    ("init_nsproxy", &["nsproxy"]),
    ("init_pid_ns", &["pid_namespace"]),
    ("init_task", &["task_struct"]),
    ("init_user_ns", &["user_namespace"]),
    ("init_uts_ns", &["uts_namespace"]),
    ("iomem_resource", &["resource"]),
    ("irq_desc_tree", &["radix_tree_root", "xarray"]),
    ("jiffies_64", &["u64"]),
    ("kernel_cpustat", &["kernel_cpustat"]),
    ("mem_section", &["mem_section **", "mem_section []"]),
    ("modules", &["list_head"]),
    ("mount_hashtable", &["hlist_head *"]),
    ("net_namespace_list", &["list_head"]),
    ("node_data", &["pglist_data *[]"]),
    ("nr_cpu_ids", &["unsigned int"]),
    ("panic_cpu", &["atomic_t"]),
    ("pci_root_buses", &["list_head"]),
    ("prb", &["printk_ringbuffer *"]),
    ("printk_rb_static", &["printk_ringbuffer"]),
    ("pcpu_hot", &["pcpu_hot"]),
    ("root_task_group", &["task_group"]),
    ("runqueues", &["rq"]),
    ("saved_command_line", &["char *"]),
    ("slab_caches", &["list_head"]),
    ("sparse_irqs", &["maple_tree"]),
    ("super_blocks", &["list_head"]),
    ("swap_info", &["swap_info_struct *[]"]),
    ("sysctl_hung_task_detect_count", &["long unsigned int"]),
    ("sysctl_hung_task_timeout_secs", &["long unsigned int"]),
    ("tainted_mask", &["long unsigned int"]),
    ("task_group_cache", &["kmem_cache *"]),
    ("task_groups", &["list_head"]),
    ("tcp_hashinfo", &["inet_hashinfo"]),
    ("timekeeper", &["timekeeper"]),
    ("totalreserve_pages", &["long unsigned int"]),
    ("_totalram_pages", &["atomic_long_t"]),
    ("udp_table", &["udp_table"]),
    ("vm_event_states", &["vm_event_state"]),
    ("vm_node_stat", &["atomic_long_t []"]),
    ("vm_zone_stat", &["atomic_long_t []"]),
    ("vmap_area_list", &["list_head"]),
    ("workqueues", &["list_head"]),
];

/// The type of a variable: from BTF where that tells it, else from the table if the dump agrees.
///
/// # Errors
/// [`TypeError::NoType`] where neither tells it; [`TypeError::Unfit`] where the table's claim does not agree with the dump.
pub fn type_of<'a>(types: &'a Types, symbols: &Symbols, name: &str) -> Result<Global<'a>, TypeError> {
    if let Ok(ty) = types.variable(name) {
        return of_btf(ty);
    }
    let unknown = TypeError::NoType { what: "type for the variable", name: name.to_owned() };
    let Some((_, claims)) = TABLE.iter().find(|(n, _)| *n == name) else { return Err(unknown) };
    let room = symbols.symbol(name).and_then(|s| s.size);
    let mut reason = unknown;
    for claim in *claims {
        match check(types, claim, room) {
            Ok(global) => return Ok(global),
            Err(Some(found)) => {
                reason = TypeError::Unfit {
                    of: "the kernel's data".into(),
                    member: name.to_owned(),
                    found,
                    wanted: "what the table says",
                };
            }
            Err(None) => {}
        }
    }
    Err(reason)
}

fn of_btf(ty: Type<'_>) -> Result<Global<'_>, TypeError> {
    if let Some((element, _)) = ty.array()? {
        let element = element.resolve()?;
        return Ok(match element.target()? {
            Some(target) if element.kind() == Kind::Pointer => {
                Global { ty: target, shape: Shape::PointerArray }
            }
            _ => Global { ty: element, shape: Shape::Array },
        });
    }
    let resolved = ty.resolve()?;
    Ok(match resolved.target()? {
        Some(target) if resolved.kind() == Kind::Pointer => Global { ty: target, shape: Shape::Pointer },
        _ => Global { ty, shape: Shape::Value },
    })
}

/// A claim, where the type exists and has room: else the size that does not fit, or nothing where the type does not exist.
fn check<'a>(types: &'a Types, claim: &str, room: Option<u64>) -> Result<Global<'a>, Option<String>> {
    let (name, shape) = match claim
        .split_once([' ', '*'])
        .map_or((claim, ""), |(name, _)| (name, claim.get(name.len()..).unwrap_or_default()))
    {
        (_, rest) if rest.contains("int") => (claim, Shape::Value),
        (name, rest) => match rest.trim() {
            "*[]" => (name, Shape::PointerArray),
            "[]" => (name, Shape::Array),
            "*" | "**" => (name, Shape::Pointer),
            _ => (name, Shape::Value),
        },
    };
    let kernel = types.kernel().ok_or(None)?;
    let ty = match kernel.structure(name) {
        Ok(found) => found.ty(),
        Err(_) => kernel.data_type(name).map_err(|_| None)?,
    };
    let least = match shape {
        Shape::Value | Shape::Array => ty.size().map_err(|_| None)?,
        Shape::Pointer | Shape::PointerArray => 8,
    };
    match room {
        Some(room) if room < least => Err(Some(format!("room for {room} bytes"))),
        _ => Ok(Global { ty, shape }),
    }
}
