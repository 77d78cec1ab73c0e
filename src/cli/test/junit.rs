//! The report that build servers read.

use std::fmt::Write as _;
use std::time::Duration;

use super::Played;

/// A `JUnit` report: a suite per file, a case per scenario.
pub(super) fn report(played: &[Played]) -> String {
    let mut files: Vec<&str> = Vec::new();
    for one in played {
        if files.last() != Some(&one.file.as_str()) {
            files.push(&one.file);
        }
    }
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let head = |name: &str, tag: &str, cases: &[&Played]| {
        let failed = cases.iter().filter(|one| !one.differences.is_empty()).count();
        let took: Duration = cases.iter().map(|one| one.took).sum();
        let (name, count) = (escaped(name), cases.len());
        format!("<{tag} name=\"{name}\" tests=\"{count}\" failures=\"{failed}\" errors=\"0\" time=\"{:.6}\">\n", took.as_secs_f64())
    };
    xml.push_str(&head("hms-orch test", "testsuites", &played.iter().collect::<Vec<_>>()));
    for file in files {
        let cases: Vec<_> = played.iter().filter(|one| one.file == file).collect();
        xml.push_str(&format!("  {}", head(file, "testsuite", &cases)));
        for one in cases {
            case(&mut xml, one);
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn case(xml: &mut String, one: &Played) {
    let (file, name) = (escaped(&one.file), escaped(&one.name));
    let took = one.took.as_secs_f64();
    // Writing to a string does not fail.
    let _ = write!(xml, "    <testcase classname=\"{file}\" name=\"{name}\" file=\"{file}\" line=\"{}\" time=\"{took:.6}\"", one.line);
    let Some(first) = one.differences.first() else {
        xml.push_str("/>\n");
        return;
    };
    let mut text = String::new();
    for difference in &one.differences {
        let _ = writeln!(text, "{}:{}: {difference}", one.file, difference.line);
    }
    for moment in &one.story {
        let _ = writeln!(text, "{moment}");
    }
    let message = escaped(&format!("{}: {}", first.what, first.lines.join("; ")));
    let _ = write!(xml, ">\n      <failure type=\"difference\" message=\"{message}\">{}</failure>\n    </testcase>\n", escaped(&text));
}

/// Text inside of XML. Characters that XML 1.0 cannot hold at all are replaced.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&apos;"),
            '\n' | '\t' => safe.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::scenario::Difference;

    #[test]
    fn names_and_texts_cannot_break_the_report() {
        let one = |name: &str, differences: Vec<Difference>| Played {
            file: "a&b.scenario.yaml".to_owned(),
            line: 3,
            title: String::new(),
            name: name.to_owned(),
            differences,
            story: Vec::new(),
            elapsed: Duration::ZERO,
            took: Duration::from_millis(2),
        };
        let difference = Difference { line: 7, what: "state".to_owned(), lines: vec!["expected <x> \u{1b}\u{0}".to_owned(), "]]>".to_owned()] };
        let xml = report(&[one("it's \"quoted\"", vec![]), one("fails", vec![difference])]);
        let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<testsuites name=\"hms-orch test\" tests=\"2\" failures=\"1\" errors=\"0\" time=\"0.004000\">
  <testsuite name=\"a&amp;b.scenario.yaml\" tests=\"2\" failures=\"1\" errors=\"0\" time=\"0.004000\">
    <testcase classname=\"a&amp;b.scenario.yaml\" name=\"it&apos;s &quot;quoted&quot;\" file=\"a&amp;b.scenario.yaml\" line=\"3\" time=\"0.002000\"/>
    <testcase classname=\"a&amp;b.scenario.yaml\" name=\"fails\" file=\"a&amp;b.scenario.yaml\" line=\"3\" time=\"0.002000\">
      <failure type=\"difference\" message=\"state: expected &lt;x&gt; \u{fffd}\u{fffd}; ]]&gt;\">a&amp;b.scenario.yaml:7: state:
    expected &lt;x&gt; \u{fffd}\u{fffd}
    ]]&gt;
</failure>
    </testcase>
  </testsuite>
</testsuites>
";
        assert_eq!(xml, expected);
    }
}
