//! Checks a document against a JSON schema, as far as the schemas in `docs/json-schemas` go: a word that this
//! check does not know fails, so that no rule is passed over in silence.

use serde_json::{Map, Value};

/// That a document is as the schema of this name in `docs/json-schemas` says, and has nothing that it does not name.
#[track_caller]
pub(crate) fn fits(name: &str, document: &Value) {
    let text = std::fs::read_to_string(super::docs(&format!("json-schemas/{name}.json"))).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(violations(&schema, document), Vec::<String>::new());
    assert_eq!(undocumented(&schema, document), Vec::<String>::new());
}

/// Every way in which `document` differs from `schema`, each with its place.
pub(crate) fn violations(schema: &Value, document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, schema, document, "", &mut found);
    found
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let rules: &Map<String, Value> = schema.as_object().expect("a schema is an object");
    for (word, rule) in rules {
        match word.as_str() {
            "$ref" => {
                let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
                check(root, root.pointer(pointer).expect("a reference leads somewhere"), value, at, found);
            }
            "const" if rule != value => found.push(format!("{at}: {value} is not {rule}")),
            "enum" if !rule.as_array().unwrap().contains(value) => {
                found.push(format!("{at}: {value} is none of {rule}"));
            }
            "type" => {
                let types: Vec<&str> = rule.as_str().map_or_else(
                    || rule.as_array().unwrap().iter().filter_map(Value::as_str).collect(),
                    |t| vec![t],
                );
                if !types.iter().any(|kind| is(kind, value)) {
                    found.push(format!("{at}: {value} is no {}", types.join(" or ")));
                }
            }
            "anyOf" => {
                let fits = |option: &Value| {
                    let mut why = Vec::new();
                    check(root, option, value, at, &mut why);
                    why.is_empty()
                };
                if !rule.as_array().unwrap().iter().any(fits) {
                    found.push(format!("{at}: {value} is none of the forms it can have"));
                }
            }
            "required" => {
                for name in rule.as_array().unwrap().iter().filter_map(Value::as_str) {
                    if value.as_object().is_some_and(|object| !object.contains_key(name)) {
                        found.push(format!("{at}: {name} is not there"));
                    }
                }
            }
            "properties" => {
                for (name, rule) in rule.as_object().unwrap() {
                    if let Some(member) = value.get(name) {
                        check(root, rule, member, &format!("{at}/{name}"), found);
                    }
                }
            }
            "additionalProperties" => {
                let known = rules.get("properties").and_then(Value::as_object);
                for (name, member) in value.as_object().into_iter().flatten() {
                    if known.is_none_or(|known| !known.contains_key(name)) {
                        check(root, rule, member, &format!("{at}/{name}"), found);
                    }
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, item, &format!("{at}/{index}"), found);
                }
            }
            "pattern" => {
                let text = value.as_str().unwrap_or_default();
                let fits = match rule.as_str().unwrap() {
                    "^0x[0-9a-f]+$" => text.strip_prefix("0x").is_some_and(|hex| {
                        !hex.is_empty() && hex.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
                    }),
                    "^KD-[A-Z0-9-]+$" => text.strip_prefix("KD-").is_some_and(|rest| {
                        !rest.is_empty() && rest.chars().all(|c| matches!(c, 'A'..='Z' | '0'..='9' | '-'))
                    }),
                    other => panic!("the check does not know the pattern {other}"),
                };
                if !fits {
                    found.push(format!("{at}: {value} does not match {rule}"));
                }
            }
            "$schema" | "$id" | "$defs" | "title" | "description" | "const" | "enum" => {}
            other => panic!("the check does not know the schema word {other:?}"),
        }
    }
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the check does not know the type {other}"),
    }
}

/// Names of the document's members that the schema does not know: they would be undocumented.
pub(crate) fn undocumented(schema: &Value, document: &Value) -> Vec<String> {
    let known = schema.pointer("/properties").and_then(Value::as_object).unwrap();
    document.as_object().unwrap().keys().filter(|name| !known.contains_key(*name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_check_finds_each_kind_of_difference() {
        let schema = json!({
            "type": "object", "required": ["a", "b"],
            "properties": {
                "a": {"type": ["integer", "null"]}, "b": {"$ref": "#/$defs/hex"}, "c": {"enum": ["x", null]},
                "d": {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/hex"}, {"type": "null"}]}}
            },
            "$defs": {"hex": {"type": "string", "pattern": "^0x[0-9a-f]+$"}}
        });
        let good = json!({"a": null, "b": "0xff", "c": null, "d": [null, "0x0"]});
        assert_eq!(violations(&schema, &good), Vec::<String>::new());
        assert_eq!(violations(&schema, &json!({"a": 1})), ["/: b is not there".replace("/:", ":")]);
        assert_eq!(violations(&schema, &json!({"a": "1", "b": "0xff"})).len(), 1);
        assert_eq!(violations(&schema, &json!({"a": 1, "b": "ff"})).len(), 1);
        assert_eq!(violations(&schema, &json!({"a": 1, "b": "0x1", "c": "y"})).len(), 1);
        assert_eq!(violations(&schema, &json!({"a": 1, "b": "0x1", "d": ["z"]})).len(), 1);
    }
}
