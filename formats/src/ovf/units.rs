//! Programmatic units (DSP0004 annex C, as DSP0243 uses them): what a number in `capacity` or
//! `VirtualQuantity` counts. Products of numbers, powers and one base unit: `byte * 2^20`,
//! `hertz * 10^6`, `kibibyte`, and the old names `MegaBytes` and `MB`. Quotients and negative powers
//! count nothing that a machine is made of and are refused.

use hako_block::{Error, Result};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Bytes.
    Byte,
    /// Cycles per second.
    Hertz,
}

/// SI prefixes, as DSP0004 annex C.1 has them.
const DECIMAL: [(&str, u32); 6] = [
    ("kilo", 3),
    ("mega", 6),
    ("giga", 9),
    ("tera", 12),
    ("peta", 15),
    ("exa", 18),
];

/// IEC prefixes.
const BINARY: [(&str, u32); 6] = [
    ("kibi", 10),
    ("mebi", 20),
    ("gibi", 30),
    ("tebi", 40),
    ("pebi", 50),
    ("exbi", 60),
];

/// Returns `quantity`, counted in `units`, in bytes or hertz. No units are the base itself. Errors:
/// [`hako_block::ErrorKind::Corrupt`] for units that are none of `base`, or too much for 64 bits.
pub fn amount(quantity: u64, units: &str, base: Base) -> Result<u64> {
    quantity
        .checked_mul(factor(units, base)?)
        .ok_or_else(|| wrong(units, &format!("{quantity} of them are more than 2^64")))
}

/// Returns how many bytes or hertz one of `units` is.
pub fn factor(units: &str, base: Base) -> Result<u64> {
    let lower = units.trim().to_ascii_lowercase();
    if lower.is_empty() {
        return Ok(1);
    }
    let mut product: u64 = 1;
    let mut bases = 0;
    for term in lower.split('*') {
        let term = term.trim();
        let value = match base_unit(term, base) {
            Some(value) => {
                bases += 1;
                value
            }
            None => Some(number(units, term)?),
        };
        product = value
            .and_then(|value| product.checked_mul(value))
            .ok_or_else(|| wrong(units, "they are more than 2^64"))?;
    }
    match (bases, product) {
        (2.., _) => Err(wrong(units, "they name a unit twice")),
        (_, 0) => Err(wrong(units, "they are nothing")),
        _ => Ok(product),
    }
}

/// Returns the value of a name; `Some(None)` for one that is beyond 64 bits.
fn base_unit(name: &str, base: Base) -> Option<Option<u64>> {
    match base {
        Base::Byte => byte_unit(name),
        Base::Hertz => hertz_unit(name).map(Some),
    }
}

/// `byte` with a prefix is what the prefix says. The plurals and the short names are those of the
/// old Units qualifier, which DSP0004 annex C.2 maps to powers of two, as every product means them.
fn byte_unit(name: &str) -> Option<Option<u64>> {
    if matches!(name, "byte" | "bytes" | "b") {
        return Some(Some(1));
    }
    let power_of_two = |index: usize| 1u64.checked_shl(BINARY[index].1);
    for (index, ((decimal, power), (binary, _))) in DECIMAL.iter().zip(&BINARY).enumerate() {
        let short = &decimal[..1];
        let old = [format!("{decimal}bytes"), format!("{short}b")];
        let binary = [
            format!("{binary}byte"),
            format!("{binary}bytes"),
            format!("{short}ib"),
        ];
        if old.iter().chain(&binary).any(|known| known == name) {
            return Some(power_of_two(index));
        }
        if name == format!("{decimal}byte") {
            return Some(10u64.checked_pow(*power));
        }
    }
    None
}

fn hertz_unit(name: &str) -> Option<u64> {
    match name {
        "hertz" | "hz" => Some(1),
        "kilohertz" | "khz" => Some(1_000),
        "megahertz" | "mhz" => Some(1_000_000),
        "gigahertz" | "ghz" => Some(1_000_000_000),
        _ => None,
    }
}

/// Reads a number or a power; blanks around `^` are seen in the wild.
fn number(units: &str, term: &str) -> Result<u64> {
    let integer = |text: &str| -> Result<u64> {
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong(
                units,
                &format!("{text:?} is neither unit nor number"),
            ));
        }
        text.parse()
            .map_err(|_| wrong(units, &format!("{text} is more than 2^64")))
    };
    let Some((base, exponent)) = term.split_once('^') else {
        return integer(term);
    };
    let exponent = u32::try_from(integer(exponent)?).unwrap_or(u32::MAX);
    integer(base)?
        .checked_pow(exponent)
        .ok_or_else(|| wrong(units, &format!("{term} is more than 2^64")))
}

fn wrong(units: &str, what: &str) -> Error {
    let shown: String = units.chars().take(80).collect();
    Error::corrupt(format!("units {shown:?}"), what)
        .hint("units are written like byte * 2^20, or hertz * 10^6")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_the_specification_and_of_the_wild_are_read() {
        for (text, bytes) in [
            ("", 1),
            ("byte", 1),
            ("BYTE", 1),
            ("byte * 2^20", 1 << 20),
            ("byte * 2 ^ 30", 1 << 30),
            ("byte*1024*1024", 1 << 20),
            ("2^10 * byte * 4", 4096),
            ("  Byte  *  10^3 ", 1000),
            ("kilobyte", 1000),
            ("kibibyte", 1024),
            ("gibibyte * 2", 2 << 30),
            ("MegaBytes", 1 << 20),
            ("GigaBytes", 1 << 30),
            ("KB", 1024),
            ("mb", 1 << 20),
            ("GiB", 1 << 30),
            ("TeraByte", 1_000_000_000_000),
            ("2^40", 1 << 40),
            ("exbibyte", 1 << 60),
        ] {
            assert_eq!(factor(text, Base::Byte).unwrap(), bytes, "{text}");
        }
        assert_eq!(factor("hertz * 10^6", Base::Hertz).unwrap(), 1_000_000);
        assert_eq!(factor("MHz", Base::Hertz).unwrap(), 1_000_000);
        assert_eq!(amount(512, "MegaBytes", Base::Byte).unwrap(), 512 << 20);
    }

    #[test]
    fn units_that_mean_nothing_are_refused() {
        for text in [
            "furlong",
            "byte *",
            "* byte",
            "byte * byte",
            "byte / 2",
            "-byte",
            "byte * -2",
            "byte * 2^-10",
            "byte * 2^",
            "byte * ^2",
            "byte * 2^3^4",
            "byte * 0",
            "hertz",
            "byte * 0x10",
            "byte * 1.5",
            "byte * +2",
            "byte * 2^64",
            "byte * 99999999999999999999",
            "byte * 2^99999999999999999999",
            "byte * 2^40 * 2^40",
            "byte\u{0}",
        ] {
            assert!(factor(text, Base::Byte).is_err(), "{text}");
        }
        assert!(factor("byte", Base::Hertz).is_err());
    }

    #[test]
    fn an_amount_beyond_64_bits_is_refused() {
        let error = amount(u64::MAX, "byte * 2^10", Base::Byte).unwrap_err();
        assert!(error.to_string().contains("more than 2^64"), "{error}");
        assert_eq!(amount(u64::MAX, "byte", Base::Byte).unwrap(), u64::MAX);
    }
}
