use super::*;
use crate::core::event::Event;
use crate::core::expression::tests::event;
use serde_json::json;

fn sample() -> Event {
    event(
        json!({"id": "a b", "n": 5, "f": 1.5, "none": null, "list": [1, "x"], "evil": "../../admin?x=1&y=2#z%2f", "dots": "..", "dot": ".", "uni": "ü/", "brace": "}"}),
    )
}

fn template(text: &str) -> Template {
    Template::parse(text, &[Root::Data, Root::Event], None).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn one_expression_keeps_its_type() {
    let event = sample();
    let scope = Scope::of_event(&event);
    for (text, expected) in [
        ("${ data.n }", json!(5)),
        ("${data.list}", json!([1, "x"])),
        ("${ data.missing }", json!(null)),
        ("${ data.none.deeper }", json!(null)),
        ("n=${ data.n } l=${ data.list }", json!("n=5 l=[1,\"x\"]")),
        (" ${ data.n }", json!(" 5")),
        ("[${ data.missing }|${ data.none }]", json!("[|]")),
        ("$${ data.n }", json!("${ data.n }")),
        ("$$${ data.n }", json!("$${ data.n }")),
        ("100 $ {}", json!("100 $ {}")),
        ("${ {'a': '}'}['a'] }", json!("}")),
        ("${ data.brace + \"}\" }", json!("}}")),
        ("", json!("")),
    ] {
        assert_eq!(template(text).render(&scope), Ok(expected), "{text}");
    }
    assert!(template("$${ x }").is_plain() && template("plain").is_plain() && !template("${ data.n }").is_plain());
    assert!(template("${ data.n + 'x' }").render(&scope).is_err(), "a wrong type is no missing value");
}

#[test]
fn broken_templates_name_the_place() {
    for (text, column, part) in [
        ("a ${ data.n", 3, "no closing"),
        ("a ${ dta.n }", 6, "did you mean `data`?"),
        ("a ${ }", 6, "empty"),
        ("${ data.n } ${ data. }", 21, "syntax error"),
        ("${ steps.x }", 4, "not available"),
    ] {
        let error = Template::parse(text, &[Root::Data], None).expect_err(text);
        assert!(error.message.contains(part), "{text}: {error}");
        assert_eq!(error.column, column, "{text}: {error}");
    }
}

#[test]
fn a_value_cannot_leave_its_place_in_a_path() {
    let event = sample();
    let scope = Scope::of_event(&event);
    for (text, expected) in [
        ("/cases/${ data.id }/x?n=${ data.n }", Some("/cases/a%20b/x?n=5")),
        ("/c/${ data.evil }", Some("/c/..%2F..%2Fadmin%3Fx%3D1%26y%3D2%23z%252f")),
        ("/c?q=${ data.evil }", Some("/c?q=..%2F..%2Fadmin%3Fx%3D1%26y%3D2%23z%252f")),
        ("/c/${ data.uni }", Some("/c/%C3%BC%2F")),
        ("/c/${ data.missing }/d", Some("/c//d")),
        ("/c/${ data.dots }/d", None),
        ("/c/${ data.dots }", None),
        ("/c/.${ data.dot }/d", None),
        ("/c/%2e${ data.dot }/d", None),
        ("/c/${ data.dots }x", Some("/c/..x")),
        ("/c?up=${ data.dots }", Some("/c?up=..")),
        ("/plain%20path?x=1", Some("/plain%20path?x=1")),
    ] {
        assert_eq!(template(text).render_path(&scope).ok().as_deref(), expected, "{text}");
    }
}

#[test]
fn a_body_is_filled_in() {
    let document = json!({"id": "${ data.n }", "list": ["${ data.f }", 1, true, null], "text": "n: ${ data.n }", "${ data.n }": "key"});
    let body = BodyTemplate::parse(&document, &[Root::Data], None).expect("valid");
    let event = sample();
    assert_eq!(body.render(&Scope::of_event(&event)), Ok(json!({"id": 5, "list": [1.5, 1, true, null], "text": "n: 5", "${ data.n }": "key"})));
    assert!(body.uses(Root::Data) && !body.uses(Root::Event));
    assert!(BodyTemplate::parse(&json!(["${ nope }"]), &[Root::Data], None).is_err());
}
