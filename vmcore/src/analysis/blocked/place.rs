//! What a lock is called: the variable, or the object that it is part of.

use crate::addr::KVirtAddr;
use crate::analysis::parts::Context;
use crate::kernel::slab;
use crate::kernel::task::Task;
use crate::kernel::value::read_text;
use crate::sym::btf::{Kind, Struct, Type};

/// How deep structs lie in one another.
const DEPTH: usize = 12;
/// Members that are looked at in all, since unions branch.
const STEPS: usize = 4096;

/// The symbol of a lock that is a variable, or part of one; else the per-CPU variable, the task or the slab object that it is in.
pub(super) fn name(context: &Context<'_>, at: KVirtAddr, structure: &str) -> Option<String> {
    let found = symbol(context, at).or_else(|| per_cpu(context, at));
    found.or_else(|| task(context, at, structure)).or_else(|| object(context, at, structure))
}

fn symbol(context: &Context<'_>, at: KVirtAddr) -> Option<String> {
    let found = context.description.symbols.at(at)?;
    let inside = found.symbol.size.is_none_or(|size| found.offset < size.max(1));
    // What is on a task's stack, or in a slab, is no variable; a symbol without a length could be far before it.
    if !inside || found.offset > 1 << 16 {
        return None;
    }
    let module = found.symbol.module.as_deref().map(|name| format!(" [{name}]")).unwrap_or_default();
    Some(format!("{}{module}", plus(&found.symbol.name, found.offset)))
}

fn per_cpu(context: &Context<'_>, at: KVirtAddr) -> Option<String> {
    let symbols = &context.description.symbols;
    let image = symbols.address("__per_cpu_start")?..symbols.address("__per_cpu_end")?;
    context.per_cpu.possible().iter().find_map(|cpu| {
        let variable = KVirtAddr(at.0.wrapping_sub(context.per_cpu.offset(*cpu).ok()?));
        if !image.contains(&variable) {
            return None;
        }
        let nearest = symbols.kernel()?.per_cpu_at(variable)?;
        let inside = variable.0.checked_sub(nearest.address.0)?;
        Some(format!("{} of CPU {cpu}", plus(&nearest.name, inside)))
    })
}

/// A member of a task, or something on a task's stack.
fn task(context: &Context<'_>, at: KVirtAddr, structure: &str) -> Option<String> {
    let at = at.0;
    let layout = context.description.types.structure("task_struct").ok()?;
    let bytes = context.unwinder.stack_bytes();
    context.tasks.tasks.iter().find_map(|task: &Task| {
        let whose = || format!("{} (pid {})", task.comm, task.pid);
        if let Some(inside) = at.checked_sub(task.kaddr.0).filter(|inside| *inside < layout.size()) {
            let member = member(layout, inside, structure);
            let place =
                member.map_or_else(|| plus("task_struct", inside), |path| format!("task_struct->{path}"));
            return Some(format!("{place} of {}", whose()));
        }
        let on_stack = at.checked_sub(task.stack?.0).is_some_and(|inside| inside < bytes);
        on_stack.then(|| format!("on the stack of {}", whose()))
    })
}

/// The slab object that it is in, with the member where the cache has a type of its own.
fn object(context: &Context<'_>, at: KVirtAddr, structure: &str) -> Option<String> {
    let found = slab::identify(&context.reader(), at).ok()??;
    let free = if found.allocated == Some(false) { ", which is FREE," } else { "" };
    let of = format!("in an object of slab cache {}{free}", found.cache);
    if let Some(name) = super_block(context, structure, found.start, found.offset) {
        return Some(name);
    }
    let known = types_of(&found.cache).find_map(|name| {
        let layout = context.description.types.structure(&name).ok()?;
        // The name is a guess: the type must fit, and hold such a lock at that very place.
        let fits = layout.size() <= found.object_size && !general(&found.cache);
        let path = member(layout, found.offset, structure).filter(|_| fits)?;
        Some(format!("{name}->{path} {of} at {:#x}", found.start.0))
    });
    Some(known.unwrap_or_else(|| format!("{:#x} bytes {of} at {:#x}", found.offset, found.start.0)))
}

/// A mounted filesystem, which has no slab cache of its own: its root directory names it in turn.
fn super_block(context: &Context<'_>, structure: &str, at: KVirtAddr, inside: u64) -> Option<String> {
    let source = context.reader();
    let layout = context.description.types.structure("super_block").ok()?;
    let path = member(layout, inside, structure)?;
    let root = KVirtAddr(source.member(at, "super_block", &["s_root"]).ok()?);
    if source.member(root, "dentry", &["d_sb"]).ok()? != at.0 {
        return None;
    }
    let name = at.checked_add(source.offset("super_block", "s_id").ok()?)?;
    let name = read_text(context.memory, name, 32).ok()?;
    Some(format!("super_block->{path} of {name} at {:#x}", at.0))
}

/// The slab object that a place is in: `0x98 bytes in an object of slab cache dentry at 0x…`.
pub(super) fn slab(context: &Context<'_>, at: KVirtAddr) -> Option<String> {
    let found = slab::identify(&context.reader(), at).ok()??;
    Some(format!(
        "{:#x} bytes in an object of slab cache {} at {:#x}",
        found.offset, found.cache, found.start.0
    ))
}

/// True for caches whose objects are of no one type.
fn general(cache: &str) -> bool {
    ["kmalloc-", "dma-kmalloc-", "malloc-"].iter().any(|start| cache.starts_with(start))
}

/// Names that the type of a cache's objects may have: `ext4_inode_cache` holds `struct ext4_inode_info`, `xfs_inode` its own.
fn types_of(cache: &str) -> impl Iterator<Item = String> {
    // A control group's copies carry its name on kernels before 5.9.
    let cache = cache.split('(').next().unwrap_or(cache);
    let base = cache.strip_suffix("_cache").unwrap_or(cache);
    let base = base.strip_suffix("_node").filter(|_| cache.ends_with("_node_cache")).unwrap_or(base);
    let mut names = vec![cache.to_owned()];
    names.extend([base.to_owned(), format!("{base}_info"), format!("{base}_struct"), format!("{base}_node")]);
    if base == "sock_inode" {
        names.push("socket_alloc".into());
    }
    names.into_iter()
}

/// The path of the member of type `struct wanted` at this very place.
fn member(layout: Struct<'_>, inside: u64, wanted: &str) -> Option<String> {
    let mut steps = 0;
    find(layout.ty(), inside, wanted, 0, &mut steps)
}

fn find(of: Type<'_>, inside: u64, wanted: &str, depth: usize, steps: &mut usize) -> Option<String> {
    for one in of.members() {
        *steps = steps.saturating_add(1);
        if *steps > STEPS || depth > DEPTH {
            return None;
        }
        let Some(rest) = inside.checked_sub(one.offset()) else { continue };
        if one.bits().is_some() || one.size().ok().is_none_or(|size| rest >= size) {
            continue;
        }
        let Some((ty, rest, index)) = element(one.ty(), rest) else { continue };
        if !matches!(ty.kind(), Kind::Struct | Kind::Union) {
            continue;
        }
        let own = format!("{}{index}", one.name());
        if rest == 0 && ty.name() == wanted {
            return Some(own);
        }
        if let Some(deeper) = find(ty, rest, wanted, depth.saturating_add(1), steps) {
            return Some(if own.is_empty() { deeper } else { format!("{own}.{deeper}") });
        }
    }
    None
}

/// The element of an array that a place is in, with its index in words; other types as they are.
fn element(ty: Type<'_>, inside: u64) -> Option<(Type<'_>, u64, String)> {
    let ty = ty.resolve().ok()?;
    let Some((element, count)) = ty.array().ok()? else { return Some((ty, inside, String::new())) };
    let size = element.size().ok().filter(|size| *size > 0)?;
    let number = inside.checked_div(size).filter(|number| *number < u64::from(count))?;
    Some((element.resolve().ok()?, inside.checked_rem(size)?, format!("[{number}]")))
}

fn plus(name: &str, inside: u64) -> String {
    if inside == 0 { name.to_owned() } else { format!("{name}+{inside:#x}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(cache: &str) -> Vec<String> {
        types_of(cache).collect()
    }

    #[test]
    fn the_type_of_a_cache_is_looked_for_under_the_names_that_kernels_give() {
        assert!(tried("ext4_inode_cache").contains(&"ext4_inode_info".to_owned()));
        assert!(tried("inode_cache").contains(&"inode".to_owned()));
        assert!(tried("xfs_inode").contains(&"xfs_inode".to_owned()));
        assert!(tried("files_cache").contains(&"files_struct".to_owned()));
        assert!(tried("kernfs_node_cache").contains(&"kernfs_node".to_owned()));
        assert!(tried("mm_struct").contains(&"mm_struct".to_owned()));
    }

    #[test]
    fn a_cache_of_plain_sizes_has_no_type() {
        assert!(general("kmalloc-1k"));
        assert!(general("kmalloc-cg-64"));
        assert!(!general("ext4_inode_cache"));
    }
}
