//! A small kernel of two source files, compiled and linked as a kernel is.

use std::path::{Path, PathBuf};
use std::process::Command;

use vmcore::limits::Limits;
use vmcore::sym::dwarf::Debuginfo;

const ONE: &str = r"
typedef unsigned int u32;
typedef struct { int counter; } atomic_t;
struct later;
enum state { RUNNING, SLEEPING = 7, GONE = -3 };
enum wide { SMALL = 1, LARGE = 0x123456789abcULL };
struct list { struct list *next, **prev; };
struct task {
    const volatile char *name;
    u32 flags : 3, : 2, mode : 7;
    union { struct { long a; short b[3]; }; unsigned long whole; };
    atomic_t count;
    struct later *unknown_here;
    struct list all;
    enum state state;
    char grid[4][6];
    int (*call)(int);
    _Bool done;
    double load;
    unsigned char tail[];
};
struct twin { int first; };
struct task init_task = { .mode = 5 };
struct twin *twin_of_one;
static int hidden = 3;
enum wide wide_one;
int __per_cpu_start_is_not_here;
static inline __attribute__((always_inline)) int inner(int *p) {
    *p += hidden;
    return *p * 3;
}
static inline __attribute__((always_inline)) int middle(int *p) {
    return inner(p) + 1;
}
int outer(int *p) {
    int sum = middle(p);
    *p = sum ^ 0x55;
    return sum;
}
";

const TWO: &str = r"
struct later { long long here; int there; };
struct twin { char other[40]; long second; };
struct later the_later;
struct twin *twin_of_two;
static long hidden = 4;
long also(void) { return hidden + the_later.here + twin_of_two->second; }
";

/// Compiles and links; `None` (and a word of it) where this host can't.
pub(crate) fn kernel(dir: &Path, name: &str, options: &[&str]) -> Option<PathBuf> {
    std::fs::write(dir.join("one.c"), ONE).unwrap();
    std::fs::write(dir.join("two.c"), TWO).unwrap();
    let built = Command::new("gcc")
        .current_dir(dir)
        .args([
            "-O2",
            "-g",
            "-mcmodel=kernel",
            "-fno-pie",
            "-no-pie",
            "-nostdlib",
            "-static",
            "-fno-stack-protector",
        ])
        .args([
            "-fno-toplevel-reorder",
            "-Wl,--build-id=sha1",
            "-Wl,-Ttext-segment=0xffffffff81000000",
            "-Wl,-e,0",
        ])
        .args(options)
        .args(["one.c", "two.c", "-o", name])
        .output();
    match built {
        Ok(output) if output.status.success() => Some(dir.join(name)),
        Ok(output) => {
            println!("skipped: gcc {options:?}: {}", String::from_utf8_lossy(&output.stderr));
            None
        }
        Err(error) => {
            println!("skipped: no gcc: {error}");
            None
        }
    }
}

pub(crate) fn open(path: &Path) -> Debuginfo {
    Debuginfo::open(path, &Limits::default()).unwrap()
}
