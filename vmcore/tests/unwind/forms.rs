//! Each form of the ORC tables, told from the entries alone, and what damage to them costs.

use std::fmt::Write as _;

use fixtures::orc::{CPU, Form, IPS, STACK, Scene, TEXT, THREAD, USER_TASK, scene};
use vmcore::addr::KVirtAddr;
use vmcore::format::prstatus::Registers;
use vmcore::format::vmcoreinfo::Vmcoreinfo;
use vmcore::kernel::describe::Description;
use vmcore::kernel::percpu::PerCpu;
use vmcore::limits::Limits;
use vmcore::sym::Symbols;
use vmcore::unwind::orc::OrcVersion;
use vmcore::unwind::{FrameKind, Method, Stack, StackEnd, Trust, Unwinder};

use crate::ram::Ram;

const FORMS: [(Form, OrcVersion); 4] = [
    (Form::First, OrcVersion::V1),
    (Form::Second, OrcVersion::V2),
    (Form::Third, OrcVersion::V3),
    (Form::Fourth, OrcVersion::V4),
];

fn ram(scene: &Scene) -> Ram {
    let mut ram = Ram::default();
    scene.pieces.iter().for_each(|(at, bytes)| ram.put(*at, bytes));
    ram
}

fn description(scene: &Scene) -> Description {
    let mut description = Description::default();
    description.symbols = Symbols::new(&Vmcoreinfo::parse(scene.vmcoreinfo.as_bytes()), None);
    description
}

fn with<T>(scene: &Scene, ram: &Ram, look: impl FnOnce(&Unwinder<'_>) -> T) -> T {
    let (memory, description, cpus) = (ram.memory(), description(scene), PerCpu::default());
    look(&Unwinder::new(&memory, &description, &cpus, &Limits::default()))
}

fn sleeping(unwinder: &Unwinder<'_>, (stack, sp): (u64, u64)) -> Stack {
    unwinder.unwind_sleeping(KVirtAddr(stack), KVirtAddr(sp))
}

fn pcs(stack: &Stack) -> Vec<u64> {
    stack.frames.iter().map(|frame| frame.pc.0).collect()
}

fn registers([rip, rsp, rbp]: [u64; 3]) -> Registers {
    Registers { rip, rsp, rbp, cs: 0x10, ..Registers::default() }
}

#[test]
fn the_form_is_told_from_the_entries_and_stacks_end_in_user_space_or_at_their_outermost_frame() {
    for (form, version) in FORMS {
        let scene = scene(form);
        with(&scene, &ram(&scene), |unwinder| {
            assert_eq!(unwinder.method(), Method::Orc(version), "{}", unwinder.how_sure());
            let stack = sleeping(unwinder, scene.sleeping[0]);
            assert_eq!(pcs(&stack), USER_TASK, "{form:?}: {}", stack.end);
            assert!(
                matches!(stack.end, StackEnd::User { ip: 0x40_1000, sp: 0x7ffc_0000, .. }),
                "{:?}",
                stack.end
            );
            assert!(stack.is_complete());
            let trusts: Vec<_> = stack.frames.iter().map(|f| f.trust).collect();
            assert_eq!(trusts, [Trust::Regs, Trust::Orc, Trust::Orc]);
            let stack = sleeping(unwinder, scene.sleeping[1]);
            assert_eq!((pcs(&stack), stack.end), (THREAD.to_vec(), StackEnd::Outermost), "{form:?}");
        });
    }
}

#[test]
fn an_interrupted_frame_is_looked_up_where_it_was_and_keeps_its_registers() {
    for (form, _) in FORMS {
        let scene = scene(form);
        with(&scene, &ram(&scene), |unwinder| {
            let stack = unwinder.unwind_registers(&registers(scene.running), 0);
            assert_eq!(pcs(&stack), CPU, "{form:?}: {} {:?}", stack.end, stack.doubts);
            assert!(stack.is_complete());
            let FrameKind::Interrupted { saved_at: Some(_), registers: Some(saved) } = &stack.frames[2].kind
            else {
                panic!("{:?}", stack.frames[2]);
            };
            assert_eq!((saved.rip, saved.cs, saved.r13), (CPU[2], 0x10, 13));
            assert_eq!(stack.frames[2].trust, Trust::Regs);
        });
    }
}

#[test]
fn registers_of_user_space_have_no_kernel_stack() {
    let scene = scene(Form::Third);
    with(&scene, &ram(&scene), |unwinder| {
        let user = Registers { cs: 0x33, ..registers([0x40_1000, 0x7ffc_0000, 0]) };
        let stack = unwinder.unwind_registers(&user, 0);
        assert_eq!(stack.frames, []);
        assert!(matches!(stack.end, StackEnd::User { ip: 0x40_1000, .. }));
    });
}

#[test]
fn a_task_that_has_ended_has_no_stack() {
    let scene = scene(Form::First);
    with(&scene, &ram(&scene), |unwinder| {
        assert_eq!(sleeping(unwinder, (0, 0)).end, StackEnd::Freed);
    });
}

#[test]
fn entries_of_no_form_are_not_used_and_that_is_said() {
    let mut scene = scene(Form::Third);
    scene.pieces[1].1.chunks_exact_mut(6).for_each(|entry| entry[5] = 0xf7);
    with(&scene, &ram(&scene), |unwinder| {
        assert_eq!(unwinder.method(), Method::FramePointer);
        let why: Vec<_> = unwinder.gaps().iter().map(|gap| gap.why.as_str()).collect();
        assert!(why.iter().any(|why| why.contains("none of the four known forms")), "{why:?}");
    });
}

#[test]
fn a_lost_page_of_the_table_costs_its_frames_only_and_they_are_marked() {
    let scene = scene(Form::Third);
    let mut ram = ram(&scene);
    // The last page of addresses: the functions are on the first.
    ram.lose(IPS + 0x4000);
    with(&scene, &ram, |unwinder| {
        let stack = sleeping(unwinder, scene.sleeping[0]);
        assert_eq!((pcs(&stack), stack.doubts), (USER_TASK.to_vec(), vec![]));
    });
    ram.lose(IPS);
    with(&scene, &ram, |unwinder| {
        let stack = sleeping(unwinder, scene.sleeping[0]);
        assert!(!stack.is_complete());
        assert_eq!(stack.frames[1].trust, Trust::Scan);
        assert!(stack.frames.iter().skip(1).all(|frame| !frame.sure));
        assert!(stack.doubts[0].why.contains("its entry in the ORC table"), "{:?}", stack.doubts);
    });
}

/// The scene with the kernel's index of its table: a number for each 256 bytes of code.
fn with_index(mut scene: Scene, slots: &[u32]) -> Scene {
    let (from, to) = (INDEX, INDEX + 4 * slots.len() as u64);
    for (name, at) in [("orc_lookup", from), ("orc_lookup_end", to)] {
        writeln!(scene.vmcoreinfo, "SYMBOL({name})={at:x}").unwrap();
    }
    scene.pieces.push((INDEX, slots.iter().flat_map(|slot| slot.to_le_bytes()).collect()));
    scene
}

/// Behind the tables, on a page of its own.
const INDEX: u64 = IPS + 0x20_0000;

#[test]
fn an_index_that_lies_or_is_lost_changes_no_stack() {
    // The entries that hold where blocks of code begin: of the functions as the scene has them, and of the filling, 16 a block.
    let functions = [0, 1, 3, 5, 7, 9];
    let true_one: Vec<u32> = functions.into_iter().chain((0..0x100).map(|n| 11 + 16 * n)).collect();
    let many = true_one.len();
    let lies = [
        true_one.clone(),
        vec![0; many],
        vec![u32::MAX; many],
        true_one.iter().rev().copied().collect(),
        true_one.iter().map(|slot| slot + 2).collect(),
        true_one.iter().map(|slot| slot.saturating_sub(3)).collect(),
        true_one[..2].to_vec(),
    ];
    for (number, slots) in lies.into_iter().enumerate() {
        let scene = with_index(scene(Form::Third), &slots);
        let mut ram = ram(&scene);
        for lost in [false, true] {
            if lost {
                ram.lose(INDEX);
            }
            with(&scene, &ram, |unwinder| {
                let what = format!("index {number}, lost: {lost}");
                let stack = sleeping(unwinder, scene.sleeping[0]);
                assert_eq!((pcs(&stack), stack.doubts), (USER_TASK.to_vec(), vec![]), "{what}");
                let stack = unwinder.unwind_registers(&registers(scene.running), 0);
                assert_eq!((pcs(&stack), stack.doubts), (CPU.to_vec(), vec![]), "{what}");
            });
        }
    }
}

#[test]
fn a_lost_page_of_the_stack_ends_it_and_is_named() {
    let scene = scene(Form::Fourth);
    let mut ram = ram(&scene);
    ram.lose(STACK + 0x3000);
    with(&scene, &ram, |unwinder| {
        let stack = sleeping(unwinder, scene.sleeping[0]);
        assert!(matches!(&stack.end, StackEnd::Unreadable(at, _) if at.0 & !0xfff == STACK + 0x3000));
    });
}

#[test]
fn a_stack_that_leads_back_to_itself_ends() {
    let scene = scene(Form::Third);
    let mut ram = ram(&scene);
    let frame = STACK + 0x3100;
    // The middle function returns into itself, with a frame pointer that points at the same frame.
    ram.put_u64(frame, frame);
    ram.put_u64(frame + 8, USER_TASK[1]);
    with(&scene, &ram, |unwinder| {
        let stack = sleeping(unwinder, scene.sleeping[0]);
        assert!(!stack.is_complete());
        assert!(stack.frames.len() < 100, "{} frames", stack.frames.len());
        assert!(stack.doubts[0].why.contains("leads back"), "{:?}", stack.doubts);
    });
}

#[test]
fn a_stack_pointer_outside_the_stack_is_refused() {
    let scene = scene(Form::Third);
    with(&scene, &ram(&scene), |unwinder| {
        for sp in [0, STACK - 8, STACK + 0x4000, STACK + 0x3ff8, u64::MAX] {
            let stack = sleeping(unwinder, (STACK, sp));
            assert!(
                stack.frames.is_empty() && matches!(stack.end, StackEnd::Inconsistent(..)),
                "{sp:#x}: {}",
                stack.end
            );
        }
    });
}

#[test]
fn saved_registers_that_point_elsewhere_are_not_followed() {
    let scene = scene(Form::Third);
    let mut ram = ram(&scene);
    let saved = STACK + 0x8000 + 0x2028;
    ram.put_u64(saved + 19 * 8, 0xffff_8880_0012_3000);
    with(&scene, &ram, |unwinder| {
        let stack = unwinder.unwind_registers(&registers(scene.running), 0);
        assert!(!stack.is_complete());
        assert!(stack.doubts[0].why.contains("is on no stack of this CPU"), "{:?}", stack.doubts);
    });
}

/// Code with a call of `to` right before `ip`.
fn call(ram: &mut Ram, ip: u64, to: u64) {
    let distance = to.wrapping_sub(ip).to_le_bytes();
    ram.put(ip - 5, &[0xe8, distance[0], distance[1], distance[2], distance[3]]);
}

#[test]
fn a_kernel_without_tables_is_unwound_by_frame_pointers_up_to_the_registers_that_they_mark() {
    let scene = scene(Form::First);
    let mut ram = ram(&scene);
    let text = scene.vmcoreinfo.lines().filter(|line| !line.contains("orc")).collect::<Vec<_>>().join("\n");
    let scene = Scene { vmcoreinfo: text, ..scene };
    let (sp, first, second) = (STACK + 0x3000, STACK + 0x3100, STACK + 0x3180);
    let saved = STACK + 0x4000 - 168;
    let [a, b, c] = [TEXT + 0x180, TEXT + 0x280, TEXT + 0x480];
    // The switch saved rbp as its sixth word; each frame pointer points at the next, with the return address above it.
    for (at, value) in [
        (sp + 40, first),
        (sp + 48, a),
        (first, second),
        (first + 8, b),
        (second, saved | 1),
        (second + 8, c),
    ] {
        ram.put_u64(at, value);
    }
    for (number, value) in [(16, 0x40_1000), (17, 0x33), (19, 0x7ffc_0000)] {
        ram.put_u64(saved + number * 8, value);
    }
    // What else the scene has there that looks like a return address.
    ram.put_u64(sp + 88, 0);
    call(&mut ram, b, TEXT + 0x100);
    call(&mut ram, c, TEXT + 0x200);
    with(&scene, &ram, |unwinder| {
        assert_eq!(unwinder.method(), Method::FramePointer);
        let stack = sleeping(unwinder, (STACK, sp));
        assert_eq!(pcs(&stack), [a, b, c], "{}", stack.end);
        assert!(stack.frames.iter().skip(1).all(|f| f.trust == Trust::FramePointer && f.sure));
        assert!(matches!(stack.end, StackEnd::User { ip: 0x40_1000, .. }), "{}", stack.end);
    });
    // A frame pointer that was overwritten: the scan finds the same return addresses, and says that it did.
    ram.put_u64(sp + 40, 0x4141);
    with(&scene, &ram, |unwinder| {
        let stack = sleeping(unwinder, (STACK, sp));
        assert_eq!(pcs(&stack), [a, b, c]);
        assert!(stack.frames.iter().skip(1).all(|f| f.trust == Trust::Scan && !f.sure));
        assert!(!stack.is_complete());
    });
}

#[test]
fn a_call_through_a_bad_pointer_returns_to_what_called_it() {
    let scene = scene(Form::Third);
    let mut ram = ram(&scene);
    let [_, sp, _] = scene.running;
    let frame = STACK + 0x8000 + 0x3100;
    // `rip` is 0 and the return address is all that is on the stack.
    ram.put_u64(sp, USER_TASK[1]);
    let bad = registers([0, sp, frame]);
    with(&scene, &ram, |unwinder| {
        // Without a call before it, it is only a value that is in code.
        let stack = unwinder.unwind_registers(&bad, 0);
        assert!(stack.frames.iter().skip(1).all(|f| !f.sure), "{:?}", stack.frames);
    });
    // call *%rax
    ram.put(USER_TASK[1] - 7, &[0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xd0]);
    with(&scene, &ram, |unwinder| {
        let stack = unwinder.unwind_registers(&bad, 0);
        assert_eq!(pcs(&stack), [0, USER_TASK[1], CPU[3]], "{} {:?}", stack.end, stack.doubts);
        assert!(stack.is_complete());
    });
}
