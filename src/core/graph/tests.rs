use super::*;
use crate::core::definition_file::tests::language::CONTRACT;
use crate::core::definition_file::{File, read};

fn saga(text: &str) -> Definition {
    match read("f.yaml", text) {
        Ok(File::Saga(definition, ..)) => definition,
        other => panic!("{text}\n{other:?}"),
    }
}

#[test]
fn a_flowchart_has_steps_undos_and_groups() {
    let text = mermaid(&saga(
        "id: a\ntrigger: [x, y]\nsteps:\n  - {name: one, call: s:/1, compensate: s:/2}\n  - [{parallel: true, maxParallel: 1}, {name: two, delayMs: 120000}, [{name: three, sql: a.b, kind: pivot}]]\n  - {name: four, emit: \"a<b\"}\n"
            .replace(", kind: pivot", "")
            .as_str(),
    ));
    let expected = r##"flowchart TD
  start(["x or y"])
  s0["<b>one</b><br/>call s:/1"]
  u0["undo: s:/2"]:::undo
  s0 -.-> u0
  start --> s0
  subgraph g1["parallel, 1 at a time"]
    s1["<b>two</b><br/>delay 2 min"]
    s2["<b>three</b><br/>sql a.b()"]
  end
  s0 --> s1
  s0 --> s2
  s3["<b>four</b><br/>emit a#lt;b"]
  s1 --> s3
  s2 --> s3
  finish(["completed"])
  s3 --> finish
  classDef undo stroke-dasharray:4 3
  classDef pivot stroke-width:3px
"##;
    assert_eq!(text, expected);
}

#[test]
fn a_picture_shows_every_step_and_is_well_formed() {
    let whole = saga(CONTRACT);
    let picture = svg(&whole);
    for step in &whole.steps {
        assert!(picture.contains(&format!(">{}</text>", step.name)), "{}", step.name);
    }
    assert!(picture.contains("point of no return") && picture.contains("class=\"box pivot\"") && picture.contains("class=\"undo\""));
    assert_balanced(&picture);
}

#[test]
fn texts_of_a_file_stay_texts() {
    let hostile = "  - {name: a, human: {prompt: \"</text><script>alert('1')</script> & \\u0001 \\\"x\\\" `y`\"}}\n";
    let definition = saga(&format!("id: a\ntrigger: \"<b>\"\nsteps:\n{hostile}"));
    let picture = svg(&definition);
    assert!(!picture.contains("<script") && !picture.contains('\u{1}'), "{picture}");
    assert_balanced(&picture);
    let text = mermaid(&definition);
    assert!(!text.contains("<script") && !text.contains('`') && text.contains("#lt;b#gt;"), "{text}");
}

#[test]
fn two_hundred_steps_side_by_side_and_deep_groups_are_drawn() {
    let wide: String = (0..200).map(|n| format!("  - {{name: s{n}, delayMs: 1}}\n")).collect();
    let deep = format!("  - {}{{name: s, delayMs: 1}}{}\n", "[{parallel: true}, ".repeat(28), "]".repeat(28));
    for (top, steps) in [("parallel: true\n", wide), ("", deep)] {
        let definition = saga(&format!("id: a\n{top}trigger: x\nsteps:\n{steps}"));
        assert_balanced(&svg(&definition));
        assert!(mermaid(&definition).lines().all(|line| !line.contains('?')));
    }
}

#[test]
fn durations_are_said_in_their_largest_unit() {
    let said: Vec<_> =
        [1, 1000, 1500, 60_000, 90_000, 7_200_000, 86_400_000].into_iter().map(|millis| duration(Duration::from_millis(millis))).collect();
    assert_eq!(said, ["1 ms", "1 s", "1500 ms", "1 min", "90 s", "2 h", "1 d"]);
}

/// Every element that is opened is closed, in order.
fn assert_balanced(xml: &str) {
    let mut open = Vec::new();
    for tag in xml.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag ends");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default().to_owned();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}
