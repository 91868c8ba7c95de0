//! Payloads of keys, from the tree of all keys (`key_serial_tree`).
//!
//! Facts: `include/linux/key.h`, `include/keys/user-type.h`, `include/keys/trusted-type.h`, `security/keys/big_key.c`.

use super::eraser::Eraser;
use crate::addr::KVirtAddr;
use crate::kernel::value::read_text;
use crate::kernel::{rbtree, slab};

/// Keys at most: the default quota of one user is 200, root's a million.
const KEYS: usize = 4 << 20;
/// A key without an owner's quota has no more.
const PAYLOAD: u64 = 1 << 20;
/// Types whose payload is nobody's secret: links to other keys, hashes and certificates that all may know.
const PUBLIC: [&str; 4] = ["keyring", "asymmetric", "blacklist", ".request_key_auth"];

pub(super) fn erase(eraser: &mut Eraser<'_, '_>) -> Result<(), String> {
    let source = eraser.source;
    let root = match source.variables().address("key_serial_tree") {
        Ok(root) => root,
        Err(why)
            if source.symbols.kernel().is_some()
                && source.types.kernel().is_some()
                && !source.types.structure("key").is_ok_and(|s| s.has("serial")) =>
        {
            // A kernel without CONFIG_KEYS has neither.
            tracing::debug!("no keys: {why}");
            return Ok(());
        }
        Err(why) => return Err(why.to_string()),
    };
    let node = source.slot("key", &["serial_node"])?.offset();
    let walk = rbtree::walk(source.memory, root, source.limits.walk_items.min(KEYS));
    if !walk.end.is_complete() {
        eraser.trouble("keys", &format!("the tree of keys is not whole: {}", walk.end));
    }
    for at in walk.items {
        let Some(key) = at.checked_sub(node) else { continue };
        eraser.object();
        if let Err(why) = one(eraser, key) {
            eraser.trouble(&format!("the key at {key}"), &why);
        }
    }
    Ok(())
}

fn one(eraser: &mut Eraser<'_, '_>, key: KVirtAddr) -> Result<(), String> {
    let source = eraser.source;
    let kind = KVirtAddr(eraser.member(key, "key", &["type"])?);
    let name = KVirtAddr(eraser.member(kind, "key_type", &["name"])?);
    let name = read_text(source.memory, name, 64).map_err(|why| format!("its type: {why}"))?;
    if PUBLIC.contains(&name.as_str()) {
        return Ok(());
    }
    let data = eraser.place(key, "key", &["payload.data"])?;
    let first = KVirtAddr(source.long(data, 0)?.cast_unsigned());
    match name.as_str() {
        // A key that is under construction, or was revoked, has none.
        _ if first.is_null() => Ok(()),
        "user" | "logon" => {
            let len = eraser.member(first, "user_key_payload", &["datalen"])?;
            let at = eraser.place(first, "user_key_payload", &["data"])?;
            eraser.erase(at, len);
            rest_of_object(eraser, at, len);
            Ok(())
        }
        // The key that a large payload in tmpfs is encrypted with, or the payload; its length is behind the path.
        _ => others(eraser, data),
    }
}

/// Of a type whose payload is not known in detail, all objects that it points at are erased whole.
fn others(eraser: &mut Eraser<'_, '_>, data: KVirtAddr) -> Result<(), String> {
    for number in 0..4 {
        let at = KVirtAddr(eraser.source.long(data, number)?.cast_unsigned());
        if at.is_null() {
            continue;
        }
        match slab::identify(&eraser.source, at) {
            Ok(Some(object)) if object.offset == 0 && object.cache.contains("kmalloc") => {
                let len = object.object_size.min(PAYLOAD);
                // What it points at itself: texts and blobs of encrypted keys.
                for inside in (0..len.min(256)).step_by(8) {
                    let Ok(inner) = eraser.source.long(at, inside >> 3) else { break };
                    let inner = KVirtAddr(inner.cast_unsigned());
                    if let Ok(Some(object)) = slab::identify(&eraser.source, inner)
                        && object.offset == 0
                        && object.start != at
                        && object.cache.contains("kmalloc")
                    {
                        eraser.erase(inner, object.object_size.min(PAYLOAD));
                    }
                }
                eraser.erase(at, len);
            }
            // A dentry or a mount of the path that a large payload has.
            Ok(Some(_)) => {}
            // A length, or some other small number.
            Ok(None) if at.0 >> 63 == 0 => {}
            Ok(None) => {
                return Err(format!("its payload at {at} is in no slab: how long it is is not known"));
            }
            Err(why) => return Err(format!("its payload at {at}: {why}")),
        }
    }
    Ok(())
}

/// What lies behind the data in its object: left from who had the object before.
fn rest_of_object(eraser: &mut Eraser<'_, '_>, at: KVirtAddr, len: u64) {
    if let Ok(Some(object)) = slab::identify(&eraser.source, at)
        && let Some(end) = object.start.checked_add(object.object_size)
        && let Some(behind) = at.checked_add(len)
        && let Some(rest) = end.0.checked_sub(behind.0)
    {
        eraser.erase(behind, rest);
    }
}
