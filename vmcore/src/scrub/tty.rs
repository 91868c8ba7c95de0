//! What was typed at terminals and sent to them: flip buffers, `n_tty`'s line, buffers of writes.
//!
//! Facts: `include/linux/tty.h`, `include/linux/tty_buffer.h`, `drivers/tty/pty.c`, `drivers/tty/n_tty.c`, `drivers/tty/tty_buffer.c`.

use std::collections::BTreeSet;

use super::eraser::Eraser;
use super::files;
use crate::addr::KVirtAddr;
use crate::kernel::list;
use crate::kernel::task::Tasks;

/// Drivers, and terminals of one, at most.
const DRIVERS: usize = 1024;
const LINES: u64 = 1 << 20;
/// Flip buffers of one terminal at most: 64 KiB of data in pieces of 256.
const BUFFERS: usize = 4096;
/// One flip buffer, and one write, are not larger.
const BYTES: u64 = 1 << 20;

pub(super) fn erase(eraser: &mut Eraser<'_, '_>, tasks: &Tasks) -> Result<(), String> {
    let source = eraser.source;
    let head = source.variables().address("tty_drivers").map_err(|why| why.to_string())?;
    let node = source.slot("tty_driver", &["tty_drivers"])?.offset();
    let walk = list::walk(source.memory, head, DRIVERS);
    if !walk.end.is_complete() {
        eraser.trouble("drivers of terminals", &walk.end.to_string());
    }
    let (mut ports, mut open) = (BTreeSet::new(), Vec::new());
    for driver in walk.items.into_iter().filter_map(|at| at.checked_sub(node)) {
        if let Err(why) = lines(eraser, driver, &mut ports, &mut open) {
            eraser.trouble(&format!("terminals of the driver at {driver}"), &why);
        }
    }
    // Pseudo terminals are in no driver's table: devpts makes them, and who has one open knows it.
    if let Err(why) = opened(eraser, tasks, &mut open) {
        eraser.trouble("pseudo terminals", &why);
    }
    let mut seen = BTreeSet::new();
    while let Some(tty) = open.pop() {
        if tty.is_null() || !seen.insert(tty) {
            continue;
        }
        // The other end of a pseudo terminal.
        match eraser.member(tty, "tty_struct", &["link"]) {
            Ok(link) => open.push(KVirtAddr(link)),
            Err(why) => eraser.trouble(&format!("the other end of the terminal at {tty}"), &why),
        }
        if let Err(why) = terminal(eraser, tty, &mut ports) {
            eraser.trouble(&format!("the terminal at {tty}"), &why);
        }
    }
    for port in ports {
        if let Err(why) = flip(eraser, port) {
            eraser.trouble(&format!("flip buffers of the port at {port}"), &why);
        }
    }
    Ok(())
}

fn lines(
    eraser: &Eraser<'_, '_>,
    driver: KVirtAddr,
    ports: &mut BTreeSet<KVirtAddr>,
    open: &mut Vec<KVirtAddr>,
) -> Result<(), String> {
    let of = |name: &str| eraser.member(driver, "tty_driver", &[name]);
    let count = of("num")?;
    if count > LINES {
        return Err(format!("it claims {count} of them"));
    }
    let (ttys, own) = (KVirtAddr(of("ttys")?), KVirtAddr(of("ports")?));
    for number in 0..count {
        if !own.is_null() {
            let port = KVirtAddr(eraser.source.long(own, number)?.cast_unsigned());
            ports.extend((!port.is_null()).then_some(port));
        }
        if !ttys.is_null() {
            open.push(KVirtAddr(eraser.source.long(ttys, number)?.cast_unsigned()));
        }
    }
    Ok(())
}

/// The terminals of open files, and those that control a session.
fn opened(eraser: &mut Eraser<'_, '_>, tasks: &Tasks, open: &mut Vec<KVirtAddr>) -> Result<(), String> {
    let variables = eraser.source.variables();
    let first = variables.address("tty_fops").map_err(|why| why.to_string())?;
    let others = ["ptmx_fops", "console_fops", "hung_up_tty_fops"].map(|name| variables.address(name).ok());
    for file in files::open(eraser, tasks, "character device")? {
        if file.kind.is_none() {
            eraser.trouble(&format!("the open file at {}", file.kaddr), &files::unknown(&file));
            continue;
        }
        let of = |name: &str| eraser.member(file.kaddr, "file", &[name]).map(KVirtAddr);
        let found = of("f_op").and_then(|ops| {
            if ops != first && !others.contains(&Some(ops)) {
                return Ok(None);
            }
            let own = of("private_data")?;
            let back = KVirtAddr(eraser.member(own, "tty_file_private", &["file"])?);
            if back != file.kaddr {
                return Err("what it keeps of its terminal is of another file".into());
            }
            eraser.member(own, "tty_file_private", &["tty"]).map(|tty| Some(KVirtAddr(tty)))
        });
        match found {
            Ok(tty) => open.extend(tty),
            Err(why) => eraser.trouble(&format!("the open file at {}", file.kaddr), &why),
        }
    }
    for task in tasks.tasks.iter().filter(|task| task.mm.is_some()) {
        let signal = eraser.member(task.kaddr, "task_struct", &["signal"]);
        match signal.and_then(|signal| eraser.member(KVirtAddr(signal), "signal_struct", &["tty"])) {
            Ok(tty) => open.push(KVirtAddr(tty)),
            Err(why) => eraser.trouble(&format!("the terminal of pid {}", task.pid), &why),
        }
    }
    Ok(())
}

fn terminal(
    eraser: &mut Eraser<'_, '_>,
    tty: KVirtAddr,
    ports: &mut BTreeSet<KVirtAddr>,
) -> Result<(), String> {
    eraser.object();
    let of = |name: &str| eraser.member(tty, "tty_struct", &[name]).map(KVirtAddr);
    let (port, written, line) = (of("port")?, of("write_buf")?, of("disc_data")?);
    ports.extend((!port.is_null()).then_some(port));
    if !written.is_null() {
        let len = eraser.member(tty, "tty_struct", &["write_cnt"])?.min(BYTES);
        eraser.erase(written, len);
    }
    if line.is_null() {
        return Ok(());
    }
    // Other line disciplines (slip, ppp) keep no line, and something else of their own.
    let discipline = KVirtAddr(eraser.member(tty, "tty_struct", &["ldisc"])?);
    let ops = KVirtAddr(eraser.member(discipline, "tty_ldisc", &["ops"])?);
    let n_tty = eraser.source.variables().address("n_tty_ops").map_err(|why| why.to_string())?;
    if ops != n_tty {
        return Err(format!("the line discipline of the terminal at {tty} is not n_tty"));
    }
    for name in ["read_buf", "echo_buf"] {
        let bytes = eraser.source.slot("n_tty_data", &[name])?.bytes();
        let at = eraser.place(line, "n_tty_data", &[name])?;
        eraser.erase(at, bytes);
    }
    Ok(())
}

/// The flip buffers of a port, those that are free too, and what a serial port is about to send.
fn flip(eraser: &mut Eraser<'_, '_>, port: KVirtAddr) -> Result<(), String> {
    let source = eraser.source;
    let first = KVirtAddr(eraser.member(port, "tty_port", &["buf.head"])?);
    let free = KVirtAddr(eraser.member(port, "tty_port", &["buf.free.first"])?);
    let link = source.slot("tty_buffer", &["next"])?.offset();
    let data = source.slot("tty_buffer", &["data"])?.offset();
    let mut seen = BTreeSet::new();
    for list in [Some(first), free.checked_sub(link).filter(|_| !free.is_null())].into_iter().flatten() {
        let mut at = list;
        while !at.is_null() {
            if !seen.insert(at) {
                break;
            }
            if seen.len() > BUFFERS {
                return Err("there are too many".into());
            }
            let size = eraser.member(at, "tty_buffer", &["size"])?;
            if size > BYTES {
                return Err(format!("one has {size} bytes"));
            }
            eraser.object();
            let inside = at.checked_add(data).ok_or("it is past 2^64")?;
            // A byte of flags for each byte of data lies behind them where somebody used flags: no text.
            eraser.erase(inside, size);
            let next = KVirtAddr(eraser.member(at, "tty_buffer", &["next"])?);
            at = next;
        }
    }
    // Since 6.10 serial ports have it here (kernel commit 1788cf6a91d9), before that in uart_state, of which the port is the beginning.
    if let Ok(sent) = eraser.member(port, "tty_port", &["xmit_buf"]).map(KVirtAddr)
        && !sent.is_null()
    {
        eraser.erase(sent, source.page_size);
    }
    let ops = source.variables().address("uart_port_ops").ok();
    let own = eraser.member(port, "tty_port", &["ops"]).ok().map(KVirtAddr);
    let begins = source.slot("uart_state", &["port"]).is_ok_and(|slot| slot.offset() == 0);
    if begins
        && ops.is_some()
        && own == ops
        && let Ok(sent) = eraser.member(port, "uart_state", &["xmit.buf"]).map(KVirtAddr)
        && !sent.is_null()
    {
        eraser.erase(sent, source.page_size);
    }
    Ok(())
}
