//! Forms of human steps: JSON Schemas, and whether what somebody filled in meets one.
//!
//! Invariant: nothing is fetched; a form refers to nothing outside itself.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

/// More findings than these help nobody.
const FINDINGS_MAX: usize = 20;
/// A finding says what is wrong, not the whole of what was filled in.
const FINDING_CHARS_MAX: usize = 300;

/// Whether a document is a schema that forms can have.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn check(schema: &Value) -> Result<(), String> {
    compile(schema).map(|_| ())
}

/// Whether what was filled in meets the form; absent is read as null.
///
/// # Errors
/// What is wrong with it, a line for each finding, with the place as a JSON pointer.
pub fn validate(schema: &Value, filled_in: Option<&Value>) -> Result<(), Vec<String>> {
    let validator = compile(schema).map_err(|problem| vec![format!("the form itself cannot be used: {problem}")])?;
    let instance = filled_in.unwrap_or(&Value::Null);
    let findings: Vec<String> = validator.iter_errors(instance).take(FINDINGS_MAX).map(|error| finding(&error)).collect();
    if findings.is_empty() { Ok(()) } else { Err(findings) }
}

/// The engine for patterns is the one without backtracking: no pattern and no text can make it slow.
fn compile(schema: &Value) -> Result<Validator, String> {
    let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
    options.build(schema).map_err(|error| finding(&error))
}

fn finding(error: &jsonschema::ValidationError<'_>) -> String {
    let place = error.instance_path().to_string();
    let text = error.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(FINDING_CHARS_MAX).collect::<String>();
    if place.is_empty() { text } else { format!("{place}: {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_form_takes_what_fits_and_names_what_does_not() {
        let form = json!({"type": "object", "required": ["amount"], "properties": {"amount": {"type": "number", "maximum": 100}}});
        assert_eq!(check(&form), Ok(()));
        assert_eq!(validate(&form, Some(&json!({"amount": 5}))), Ok(()));
        assert_eq!(validate(&form, Some(&json!({"amount": 500}))), Err(vec!["/amount: 500 is greater than the maximum of 100".to_owned()]));
        assert_eq!(validate(&form, Some(&json!({}))), Err(vec!["\"amount\" is a required property".to_owned()]));
        assert_eq!(validate(&form, None), Err(vec!["null is not of type \"object\"".to_owned()]));
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        for schema in [json!({"type": "objekt"}), json!({"properties": []}), json!({"required": "amount"}), json!(5)] {
            assert!(check(&schema).is_err(), "{schema}");
        }
    }

    #[test]
    fn nothing_is_fetched() {
        for address in ["http://127.0.0.1:9/x.json", "https://example.invalid/x.json", "file:///etc/passwd"] {
            assert!(check(&json!({"$ref": address})).is_err(), "{address}");
        }
        assert_eq!(check(&json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}})), Ok(()));
    }

    #[test]
    fn patterns_cannot_be_made_slow() {
        let form = json!({"properties": {"a": {"pattern": "^(a+)+$"}}});
        let started = std::time::Instant::now();
        assert!(validate(&form, Some(&json!({"a": format!("{}!", "a".repeat(50_000))}))).is_err());
        assert!(started.elapsed() < std::time::Duration::from_secs(2));
        assert!(check(&json!({"pattern": "(?=a)"})).is_err(), "no look-around");
    }
}
