//! Whatever stands in the dump, it is text in the page.

use serde_json::json;
use vmcore::report::{
    Blocked, Confidence, Culprit, Event, FaultRegister, Finding, Instruction, KernelModule, Lock, LogLine,
    Operand, Panic, PanicKind, Report, Severity, Task, TaskRef, WaitEdge,
};

use super::{csp, page};

const EVIL: [&str; 6] = [
    "<script>document.title='owned'</script>",
    "</style><style>*{display:none}",
    "\"><img src=x onerror=alert(1)>",
    "\u{202e}gnp.exe\u{2066}",
    "nul\0 esc\x1b[2J",
    "</script><!-- ]]> &lt;b&gt; '",
];

fn hostile() -> Report {
    let evil = EVIL.join(" ");
    let mut report = Report::empty("kdt", "0", &evil);
    report.kernel.cmdline = Some(evil.clone());
    report.kernel.nodename = Some(evil.clone());
    report.panic = Some(Panic {
        kind: PanicKind::Other,
        message: evil.clone(),
        cpu: Some(0),
        task: Some(TaskRef { pid: Some(1), comm: Some(evil.clone()), kaddr: None }),
        backtrace: Vec::new(),
        fault_address: None,
        instruction: Some(Instruction {
            text: evil.clone(),
            symbol: Some(evil.clone()),
            note: Some(evil.clone()),
            operands: vec![Operand {
                text: evil.clone(),
                points_to: Some(evil.clone()),
                ..Operand::default()
            }],
            ..Instruction::default()
        }),
        registers: vec![FaultRegister {
            name: "rax".into(),
            value: vmcore::report::Address(0),
            points_to: Some(evil.clone()),
        }],
        culprit: Some(Culprit {
            task: None,
            module: Some(evil.clone()),
            function: Some(evil.clone()),
            confidence: Confidence::Hint,
            because: evil.clone(),
        }),
        first_bad_line: Some(evil.clone()),
    });
    report.events.push(Event {
        kind: "oops".into(),
        count: 1,
        first_s: Some(1.0),
        last_s: None,
        functions: vec![evil.clone()],
        line: evil.clone(),
    });
    report.modules.push(KernelModule { name: evil.clone(), ..KernelModule::default() });
    report.tasks.push(Task {
        pid: 1,
        comm: Some(evil.clone()),
        cmdline: Some(evil.clone()),
        ..Task::default()
    });
    report.log.records = Some(2);
    for text in [evil.clone(), "x".repeat(1 << 20)] {
        report.log.lines.push(LogLine { ts: Some(1.0), level: Some(3), caller: None, text });
    }
    report
        .findings
        .push(Finding::new("KD-X", Severity::Error, Confidence::Likely, &evil).because(&evil).next(&evil));
    report.skip(&evil, &evil);
    report
}

#[test]
fn hostile_text_stays_text_and_what_hides_is_seen() {
    let text = page(&[&hostile()]);
    assert_eq!(text.matches("<script").count(), 1, "only the page's own");
    assert_eq!(text.matches("<style").count(), 1);
    assert!(!text.contains("<img") && !text.contains('\0') && !text.contains('\x1b'));
    assert!(!text.contains('\u{202e}') && !text.contains('\u{2066}') && text.contains("\\u{202e}gnp.exe"));
    assert!(text.contains("&lt;script&gt;document.title="));
    assert!(text.len() < 300_000, "a line of a megabyte is cut: {}", text.len());
    assert!(text.contains("more bytes are not shown"));
}

#[test]
fn nothing_is_loaded_and_no_attribute_is_a_script_or_a_style() {
    let text = page(&[&hostile()]);
    let own = text.replace(csp::STYLE, "").replace(csp::SCRIPT, "");
    for word in [
        " src=",
        "<link",
        "<iframe",
        "<object",
        "<base",
        "@import",
        " style=",
        "href=\"http",
        "href=\"javascript",
    ] {
        // In the dump's own text it may stand, where its quotes are escaped.
        let bare = own.replace("src=x", "").replace("&quot;", "");
        assert!(!bare.contains(word), "{word}");
    }
    assert!(
        text.contains(&format!("script-src &#39;{}", csp::source(csp::SCRIPT)))
            || text.contains(&format!("script-src '{}", csp::source(csp::SCRIPT)))
    );
}

#[test]
fn the_policy_names_the_bytes_that_stand_in_the_page() {
    let text = page(&[&hostile()]);
    for (open, close, rule) in [("<style>", "</style>", "style-src"), ("<script>", "</script>", "script-src")]
    {
        let inline = text.split_once(open).unwrap().1.split_once(close).unwrap().0;
        assert!(csp::policy().contains(&format!("{rule} '{}'", csp::source(inline))), "{rule}");
    }
    assert!(csp::policy().starts_with("default-src 'none';"));
}

#[test]
fn several_dumps_have_an_index_and_one_that_is_not_usable_says_why() {
    let mut bad = Report::empty("kdt", "0", "bad");
    bad.error = Some(vmcore::report::ReportError { message: "bad is bad".into(), hint: "mend it".into() });
    let text = page(&[&hostile(), &bad]);
    assert!(
        text.contains("2 dumps, 1 of them not usable")
            && text.contains("href=\"#d2\"")
            && text.contains("id=\"d2\"")
    );
    assert!(text.contains("bad is bad") && text.contains("mend it"));
    assert!(page(&[]).contains("0 dumps"));
}

fn with_waits(edges: &[WaitEdge], cycles: &[Vec<i64>]) -> String {
    let mut report = Report::empty("kdt", "0", "dump");
    // Made from values, so that members which come later need not be named here.
    let mut blocked = serde_json::to_value(Blocked::default()).unwrap();
    blocked["edges"] = json!(edges);
    blocked["cycles"] = json!(cycles);
    report.blocked = Some(serde_json::from_value(blocked).unwrap());
    page(&[&report])
}

fn edge(waiter: i64, owner: Option<i64>) -> WaitEdge {
    WaitEdge {
        waiter,
        lock: Lock { kind: "mutex".into(), kaddr: None, name: Some("a<b".into()) },
        owner,
        sure: true,
        what: None,
    }
}

#[test]
fn waits_are_drawn_circles_are_marked_and_thousands_are_cut_with_a_word() {
    assert!(!with_waits(&[], &[]).contains("class=\"graph\""));
    let one = with_waits(&[edge(2, None)], &[]);
    assert!(one.contains("whose holder is not known") && one.contains("a&lt;b"));
    let two = with_waits(&[edge(1, Some(2)), edge(2, Some(1))], &[vec![1, 2]]);
    assert!(two.contains("A circle: pid 1 waits for pid 2 waits for pid 1"));
    assert_eq!(two.matches("class=\"edge red\"").count(), 2);
    let many = with_waits(&(1..=5000).map(|pid| edge(pid, Some(pid % 7))).collect::<Vec<_>>(), &[]);
    assert!(many.contains("The picture shows 80 of 5000 waits"));
    assert!(many.contains("3000 more are not listed"));
}
