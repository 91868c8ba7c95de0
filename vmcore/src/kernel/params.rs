//! Parameters of modules, with their values as `/sys/module/NAME/parameters` shows them.
//!
//! Which functions a parameter has (`struct kernel_param_ops`) tells its type. Those that the kernel itself provides are known
//! by their symbols; a driver's own functions are not run, and the value stays unknown. Facts: `kernel/params.c`,
//! `include/linux/moduleparam.h`.

use super::value::{Layout, read_text, view};
use crate::addr::KVirtAddr;
use crate::error::MemError;
use crate::sym::Symbols;
use crate::sym::btf::{TypeError, Types};
use crate::xlat::KernelMemory;

/// Parameters of one module at most; drivers have up to a hundred.
const MOST: u64 = 1024;
/// Elements of an array parameter at most.
const ELEMENTS: u32 = 1024;
/// Bytes of a name or a value: `sysfs` shows a page.
const TEXT: usize = 4096;

view! {
    /// `struct kernel_param`.
    struct Param of "kernel_param" {
        name: KVirtAddr = ["name"],
        ops: KVirtAddr = ["ops"],
        mode: u16 = ["perm"],
        value: KVirtAddr = ["arg"],
    }
}

view! {
    /// `struct kparam_array`.
    struct Array of "kparam_array" {
        max: u32 = ["max"],
        element_bytes: u32 = ["elemsize"],
        count: KVirtAddr = ["num"],
        ops: KVirtAddr = ["ops"],
        elements: KVirtAddr = ["elem"],
    }
}

view! {
    /// `struct kparam_string`.
    struct Text of "kparam_string" {
        max: u32 = ["maxlen"],
        text: KVirtAddr = ["string"],
    }
}

/// One parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Who may read and write it in `sysfs`; 0 where it is not there.
    pub mode: u16,
    /// The symbol of its functions: `param_ops_int`; `None` where that is not known.
    pub ops: Option<String>,
    /// Its value.
    pub value: ParamValue,
}

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParamValue {
    /// As `sysfs` shows it.
    Shown(String),
    /// Its functions are the driver's own, so its type is not known.
    UnknownType,
    /// It is not in the dump, and why.
    Unreadable(String),
}

/// The types that parameters need, settled once.
#[derive(Clone, Debug)]
pub struct ParamLayouts {
    param: Layout<Param>,
    array: Option<Layout<Array>>,
    text: Option<Layout<Text>>,
}

impl ParamLayouts {
    /// Where this kernel has what.
    ///
    /// # Errors
    /// Where it has no `struct kernel_param` that we know of.
    pub fn new(types: &Types) -> Result<Self, TypeError> {
        Ok(Self { param: Layout::new(types)?, array: Layout::new(types).ok(), text: Layout::new(types).ok() })
    }

    /// The `count` parameters in the array at `at`, and why some are missing.
    #[must_use]
    pub fn read(
        &self,
        memory: &KernelMemory<'_>,
        symbols: &Symbols,
        at: KVirtAddr,
        count: u64,
    ) -> (Vec<Parameter>, Option<String>) {
        let mut why =
            (count > MOST).then(|| format!("no module has {count} parameters; {MOST} are looked at"));
        let mut found = Vec::new();
        for number in 0..count.min(MOST) {
            let Some(at) = number.checked_mul(self.param.size()).and_then(|step| at.checked_add(step)) else {
                why.get_or_insert_with(|| "they lie at the end of the address space".into());
                break;
            };
            match self.one(memory, symbols, at) {
                Ok(parameter) => found.push(parameter),
                Err(reason) => {
                    why.get_or_insert(reason);
                }
            }
        }
        (found, why)
    }

    fn one(&self, memory: &KernelMemory<'_>, symbols: &Symbols, at: KVirtAddr) -> Result<Parameter, String> {
        let param = self.param.read(memory, at).map_err(|e| e.to_string())?;
        let name = read_text(memory, param.name, TEXT).map_err(|e| e.to_string())?;
        let ops = ops_name(symbols, param.ops);
        let value = match ops.as_deref() {
            Some("param_array_ops") => self.array(memory, symbols, param.value),
            Some("param_ops_string") => self.text(memory, param.value),
            Some(ops) => simple(memory, ops, param.value),
            None => Ok(None),
        };
        let value = match value {
            Ok(Some(text)) => ParamValue::Shown(text),
            Ok(None) => ParamValue::UnknownType,
            Err(why) => ParamValue::Unreadable(why),
        };
        Ok(Parameter { name, mode: param.mode, ops, value })
    }

    fn array(
        &self,
        memory: &KernelMemory<'_>,
        symbols: &Symbols,
        at: KVirtAddr,
    ) -> Result<Option<String>, String> {
        let Some(layout) = &self.array else { return Ok(None) };
        let array = layout.read(memory, at).map_err(|e| e.to_string())?;
        let count = if array.count.is_null() {
            array.max
        } else {
            memory.read_u32(array.count).map_err(|e| e.to_string())?.min(array.max)
        };
        if count > ELEMENTS {
            return Err(format!("no parameter has {count} elements"));
        }
        let Some(ops) = ops_name(symbols, array.ops) else { return Ok(None) };
        let mut all = Vec::new();
        for number in 0..count {
            let step = u64::from(number).saturating_mul(u64::from(array.element_bytes));
            let at = array.elements.checked_add(step).ok_or("it lies at the end of the address space")?;
            match simple(memory, &ops, at)? {
                Some(text) => all.push(text),
                None => return Ok(None),
            }
        }
        Ok(Some(all.join(",")))
    }

    fn text(&self, memory: &KernelMemory<'_>, at: KVirtAddr) -> Result<Option<String>, String> {
        let Some(layout) = &self.text else { return Ok(None) };
        let text = layout.read(memory, at).map_err(|e| e.to_string())?;
        let most = usize::try_from(text.max).unwrap_or(TEXT).min(TEXT);
        read_text(memory, text.text, most).map(Some).map_err(|e| e.to_string())
    }
}

/// The name of the functions at `at`, where that is the beginning of a symbol.
fn ops_name(symbols: &Symbols, at: KVirtAddr) -> Option<String> {
    symbols.at(at).filter(|found| found.offset == 0).map(|found| found.symbol.name)
}

/// The value of a plain type, as the kernel's own function for it prints it; `None` for functions that are not the kernel's.
fn simple(memory: &KernelMemory<'_>, ops: &str, at: KVirtAddr) -> Result<Option<String>, String> {
    let yes = |set: bool| if set { "Y" } else { "N" }.to_owned();
    let text = match ops {
        "param_ops_bool" | "param_ops_bool_enable_only" => memory.read_u8(at).map(|v| yes(v != 0)),
        "param_ops_invbool" => memory.read_u8(at).map(|v| yes(v == 0)),
        "param_ops_byte" => memory.read_u8(at).map(|v| v.to_string()),
        "param_ops_short" => memory.read_u16(at).map(|v| v.cast_signed().to_string()),
        "param_ops_ushort" => memory.read_u16(at).map(|v| v.to_string()),
        "param_ops_int" | "param_ops_bint" => memory.read_u32(at).map(|v| v.cast_signed().to_string()),
        "param_ops_uint" => memory.read_u32(at).map(|v| v.to_string()),
        "param_ops_hexint" => memory.read_u32(at).map(|v| format!("{v:#08x}")),
        "param_ops_long" => memory.read_u64(at).map(|v| v.cast_signed().to_string()),
        "param_ops_ulong" | "param_ops_ullong" => memory.read_u64(at).map(|v| v.to_string()),
        "param_ops_charp" => string(memory, at),
        _ => return Ok(None),
    };
    text.map(Some).map_err(|e| e.to_string())
}

fn string(memory: &KernelMemory<'_>, at: KVirtAddr) -> Result<String, MemError> {
    let text = memory.read_ptr(at)?;
    // As `printf` shows a null pointer.
    if text.is_null() { Ok("(null)".into()) } else { read_text(memory, text, TEXT) }
}
