//! Sizes as users write them.

/// Bytes of a size such as `5GB`, `512MiB` or `4096`. Decimal units as in Hugging Face's tools, binary ones
/// with an `i`.
///
/// # Errors
///
/// When the text is no such size, or the size is 0 or above 2^64 - 1 bytes.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let bad = || format!("found `{text}`, expected a size such as 5GB, 512MiB or 4096");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim().to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KIB" => 1 << 10,
        "MIB" => 1 << 20,
        "GIB" => 1 << 30,
        "TIB" => 1 << 40,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::parse_bytes;

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("5GB"), Ok(5_000_000_000));
        assert_eq!(parse_bytes("200 mb"), Ok(200_000_000));
        assert_eq!(parse_bytes("2GiB"), Ok(2 << 30));
        for bad in ["", "GB", "5XB", "-1", "0", "1.5GB", "99999999999TB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
