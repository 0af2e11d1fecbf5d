//! Reads what an envelope says of the software inside, and what of it one may set.

use std::collections::{BTreeMap, HashMap, HashSet};

use hako_block::Result;

use super::read::{Reader, is_true};
use super::xml::Element;
use super::{Product, Property};

/// Types of properties: DSP0243, table 7, and the names that VMware's products use besides.
const TYPES: [&str; 19] = [
    "uint8",
    "sint8",
    "uint16",
    "sint16",
    "uint32",
    "sint32",
    "uint64",
    "sint64",
    "string",
    "boolean",
    "real32",
    "real64",
    "real",
    "int",
    "ip",
    "password",
    "expression",
    "char16",
    "datetime",
];

/// Reads a section with its properties. Properties of one key are refused, unless they are for
/// different deployment options. Keys with a dot or colon, which DSP0243 forbids (9.5.1) and
/// VMware's own appliances have, are refused only where the section breaks its form as well.
pub(super) fn read(reader: &Reader, section: &Element) -> Result<Product> {
    let mut product = Product {
        class: section.ovf("class").unwrap_or_default().to_owned(),
        instance: section.ovf("instance").unwrap_or_default().to_owned(),
        name: reader.text(section, "Product"),
        vendor: reader.text(section, "Vendor"),
        version: reader.text(section, "Version"),
        properties: Vec::new(),
    };
    let mut category = String::new();
    let mut keys = Keys::default();
    for child in &section.children {
        match child.name.as_str() {
            "Category" => category = reader.message(child),
            "Property" => {
                let property = property(reader, child, &product, &category)?;
                if !keys.add(&property) {
                    let what = format!("has the key {:?}, which another has too", property.key);
                    return Err(child.wrong(&what));
                }
                product.properties.push(property);
            }
            _ => {}
        }
    }
    let odd_key = |property: &&Property| property.key.contains(['.', ':']);
    match (section.has_info(), product.properties.iter().find(odd_key)) {
        (true, _) => Ok(product),
        (false, None) => Err(section.wrong("has no Info")),
        (false, Some(property)) => Err(section.wrong(&format!(
            "has no Info, and its property's key {:?} has a dot or colon",
            property.key
        ))),
    }
}

/// The keys that are taken: for which deployment options; none for all of them.
#[derive(Default)]
struct Keys(HashMap<String, HashSet<Option<String>>>);

impl Keys {
    /// Takes a property's key; returns whether it was free.
    fn add(&mut self, property: &Property) -> bool {
        let taken = self.0.entry(property.key.clone()).or_default();
        if taken.contains(&None) {
            return false;
        }
        match property.configurations.is_empty() {
            true => taken.is_empty() && taken.insert(None),
            false => {
                let options: HashSet<_> = property.configurations.iter().cloned().collect();
                options.into_iter().all(|option| taken.insert(Some(option)))
            }
        }
    }
}

fn property(
    reader: &Reader,
    element: &Element,
    product: &Product,
    category: &str,
) -> Result<Property> {
    let key = element.required("key")?;
    let kind = element.required("type")?;
    let is_known = TYPES.iter().any(|known| known.eq_ignore_ascii_case(&kind))
        // VMware's types carry what they allow: "string(1..32)", "ip:VM Network".
        || kind.contains(['(', ':', '[']);
    if !is_known {
        return Err(element.wrong(&format!("has the type {kind:?}, which there is not")));
    }
    let full_key = [&product.class, &key, &product.instance]
        .into_iter()
        .filter(|part| !part.is_empty())
        .cloned()
        .collect::<Vec<_>>()
        .join(".");
    Ok(Property {
        full_key,
        value: element.ovf("value").map(str::to_owned),
        values: values(element),
        configurations: words(element.ovf("configuration").unwrap_or_default()),
        user_configurable: element.ovf("userConfigurable").is_some_and(is_true),
        is_password: element.ovf("password").is_some_and(is_true) || kind == "password",
        category: category.to_owned(),
        label: reader.text(element, "Label"),
        description: reader.text(element, "Description"),
        key,
        kind,
    })
}

/// Reads the values that hold for one deployment option each.
fn values(element: &Element) -> BTreeMap<String, String> {
    let pair = |value: &Element| {
        let option = value.ovf("configuration")?.to_owned();
        Some((option, value.ovf("value").unwrap_or_default().to_owned()))
    };
    element.named("Value").filter_map(pair).collect()
}

/// Splits a list of names between blanks.
pub(super) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
