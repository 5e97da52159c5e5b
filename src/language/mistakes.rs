//! Signs and words of other languages in conditions, and what conditions have in their place.

/// Words of other languages, and what conditions have in their place.
const OTHER_WORDS: [(&str, &str); 13] = [
    ("and", "&&"),
    ("or", "||"),
    ("not", "!"),
    ("AND", "&&"),
    ("OR", "||"),
    ("NOT", "!"),
    ("is", "=="),
    ("eq", "=="),
    ("ne", "!="),
    ("lt", "<"),
    ("le", "<="),
    ("gt", ">"),
    ("ge", ">="),
];

/// Signs of other languages, and what conditions have in their place.
const OTHER_SIGNS: [(&str, &str); 13] = [
    ("=", "== for equal"),
    (":=", "== for equal"),
    ("===", "== in its place"),
    ("!==", "!= in its place"),
    ("<>", "!= in its place"),
    ("≠", "!= in its place"),
    ("=>", ">= in its place"),
    ("≥", ">= in its place"),
    ("=<", "<= in its place"),
    ("≤", "<= in its place"),
    ("&", "&& for and"),
    ("|", "|| for or"),
    ("~", "x.contains('text') for a part of a text"),
];

/// What is wrong with a text that is no condition: a sign or word of another language, or else what the parser says
/// first.
pub(super) fn explained(text: &str, why: &str) -> String {
    let outside = match outside(text) {
        Ok(outside) => outside,
        Err(quote) => {
            return format!(
                "found a text that begins with {quote} and has no {quote} at its end; write \\{quote} for one inside of \
                 the text"
            );
        }
    };
    let found = word(&outside).or_else(|| sign(&outside)).or_else(|| number(&outside));
    found.or_else(|| bracket(&outside)).unwrap_or_else(|| {
        let first = why.lines().next().unwrap_or_default();
        let first = first.strip_prefix("ERROR: <input>:").unwrap_or(first);
        match first.splitn(3, ':').collect::<Vec<_>>().as_slice() {
            [line, character, why] => format!("at line {line}, character {character}:{why}"),
            _ => first.to_owned(),
        }
    })
}

/// A condition with a pair of quotes in place of each text; an error is the quote of a text that does not end.
fn outside(text: &str) -> Result<String, char> {
    let mut outside = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        outside.push(c);
        if matches!(c, '"' | '\'') {
            if !skip_text(&mut chars, c) {
                return Err(c);
            }
            outside.push(c);
        }
    }
    Ok(outside)
}

/// Goes behind the end of a text whose first quote is passed. Returns whether it has an end.
pub(super) fn skip_text(chars: &mut std::str::Chars<'_>, quote: char) -> bool {
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            c if c == quote => return true,
            _ => {}
        }
    }
    false
}

/// What is wrong with the first word of another language.
fn word(outside: &str) -> Option<String> {
    let words: Vec<&str> = outside
        .split(|c: char| !(c.is_alphanumeric() || "_.".contains(c)))
        .filter(|word| !word.is_empty())
        .collect();
    if words.windows(2).any(|pair| pair == ["not", "in"]) {
        return Some("found `not in`; write !(x in list)".to_owned());
    }
    if words.contains(&"if") {
        return Some("found `if`; write a ? b : c, which comes to b where a holds, else to c".to_owned());
    }
    let (word, sign) = OTHER_WORDS.iter().find(|(word, _)| words.contains(word))?;
    Some(format!("found `{word}`; write {sign} in its place"))
}

/// What is wrong with the first sign of another language.
fn sign(outside: &str) -> Option<String> {
    let is_sign = |c: char| "=<>!&|:~≠≥≤".contains(c);
    for signs in outside.split(|c| !is_sign(c)) {
        // A value may follow with its own sign.
        let signs = if signs == "!==" { signs } else { signs.trim_end_matches('!') };
        if let Some((sign, instead)) = OTHER_SIGNS.iter().find(|(sign, _)| *sign == signs) {
            return Some(format!("found `{sign}`; write {instead}"));
        }
    }
    let other = outside.chars().find(|c| "{}$;^“”‘’`".contains(*c));
    let other = other.or_else(|| outside.contains("**").then_some('*'))?;
    Some(match other {
        '{' | '}' => {
            "found a brace; a condition names values without braces, such as params.f or metrics.loss"
                .to_owned()
        }
        '$' => "found `$`; a condition names values without it, such as params.f or metrics.loss".to_owned(),
        ';' => "found `;`; a condition is one expression: write && between two that must hold".to_owned(),
        '^' | '*' => "found a power; write x * x".to_owned(),
        quote => format!("found {quote}; write ' or \" before and behind a text"),
    })
}

/// What is wrong with the first number that conditions write in another way.
fn number(outside: &str) -> Option<String> {
    let is_in_name = |c: char| c.is_alphanumeric() || "_.".contains(c);
    let (mut rest, mut depth) = (outside, 0_i32);
    while let Some(c) = rest.chars().next() {
        if !is_in_name(c) {
            depth += i32::from("([".contains(c)) - i32::from(")]".contains(c));
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let (found, behind) = rest.split_at(rest.find(|c| !is_in_name(c)).unwrap_or(rest.len()));
        rest = behind;
        let fault = c.is_ascii_digit().then(|| fault_of_number(found, behind.trim_start(), depth > 0));
        if let Some(Some(why)) = fault {
            return Some(why);
        }
    }
    None
}

/// What is wrong with a number, with what stands behind it, and whether brackets are around it.
fn fault_of_number(found: &str, behind: &str, is_inside: bool) -> Option<String> {
    let Ok(value) = found.parse::<f64>() else {
        let plain = found.replace('_', "");
        let alone = found.trim_end_matches(char::is_alphabetic);
        return match (plain.parse::<f64>(), alone.parse::<f64>()) {
            (Ok(_), _) => Some(format!("found `{found}`; write {plain}")),
            (_, Ok(_)) if !found.ends_with(['u', 'U']) => {
                Some(format!("found `{found}`; write the number without its unit"))
            }
            _ => None,
        };
    };
    if found.ends_with('.') {
        return Some(format!("found `{found}`; write {found}0"));
    }
    let begins =
        |text: &str| text.trim_start().starts_with(|c: char| c.is_alphanumeric() || "_.(['\"-".contains(c));
    // The remainder of a division has a value behind the sign.
    if behind.strip_prefix('%').is_some_and(|behind| !begins(behind)) {
        return Some(format!("found `{found}%`; write {}", value / 100.0));
    }
    let behind = behind.strip_prefix(',').filter(|_| !is_inside)?;
    let digits = &behind[..behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len())];
    (!digits.is_empty()).then(|| format!("found `{found},{digits}`; write {found}.{digits}"))
}

/// The first bracket without the one that belongs to it.
fn bracket(outside: &str) -> Option<String> {
    const PAIRS: [(char, char); 2] = [('(', ')'), ('[', ']')];
    let mut open = Vec::new();
    for c in outside.chars() {
        if let Some(pair) = PAIRS.iter().find(|(begin, _)| *begin == c) {
            open.push(pair);
        } else if let Some(pair) = PAIRS.iter().find(|(_, end)| *end == c)
            && open.pop() != Some(pair)
        {
            return Some(format!("found `{c}` without the `{}` before it", pair.0));
        }
    }
    open.pop().map(|(begin, end)| format!("found `{begin}` without the `{end}` behind it"))
}

#[cfg(test)]
mod tests {
    use crate::language::condition::Condition;

    #[test]
    fn a_sign_or_word_of_another_language_is_explained() {
        for (text, expected) in [
            ("metrics.acc > 80%", "found `80%`; write 0.8"),
            ("metrics.acc > 12.5 % && iteration.k % 5 == 0", "found `12.5%`; write 0.125"),
            ("metrics.acc = params.f", "found `=`; write == for equal"),
            ("metrics.acc === 1.0", "found `===`; write == in its place"),
            ("metrics.acc => 1.0", "found `=>`; write >= in its place"),
            ("metrics.acc <> 1.0", "found `<>`; write != in its place"),
            ("metrics.acc ≥ 1.0", "found `≥`; write >= in its place"),
            ("params.a & !params.b", "found `&`; write && for and"),
            ("params.a && params.b | params.c", "found `|`; write || for or"),
            ("metrics.acc > 0.5 and params.f == 2", "found `and`; write && in its place"),
            ("params.a OR params.b", "found `OR`; write || in its place"),
            ("not stages.a.ok", "found `not`; write ! in its place"),
            ("2 not in metrics.x", "found `not in`; write !(x in list)"),
            ("stages.a.ok or 'a and b' == 'c'", "found `or`; write || in its place"),
            ("choices.vote == 'accept", "found a text that begins with ' and has no ' at its end"),
            ("choices.vote == 'it's'", "has no ' at its end; write \\' for one inside of the text"),
            ("choices.vote == “accept”", "found “; write ' or \" before and behind a text"),
            ("{step.loss} < 1.0", "names values without braces"),
            ("$loss < 1.0", "found `$`; a condition names values without it"),
            ("metrics.a > 1.0; metrics.b > 1.0", "found `;`; a condition is one expression"),
            ("metrics.a ** 2 > 1.0", "found a power; write x * x"),
            ("if params.a then params.b", "found `if`; write a ? b : c"),
            ("metrics.acc > 0,8", "found `0,8`; write 0.8"),
            ("stages.a.seconds > 10s", "found `10s`; write the number without its unit"),
            ("params.n > 1_000", "found `1_000`; write 1000"),
            ("metrics.acc > 5.", "found `5.`; write 5.0"),
            ("max(1, 2 > 1", "found `(` without the `)` behind it"),
            ("params.a)", "found `)` without the `(` before it"),
            ("params.f >", "is no condition: at line 1, character "),
        ] {
            let why = Condition::parse(text).unwrap_err().to_string();
            assert!(why.contains(expected) && !why.contains('\n'), "{text}: {why}");
        }
        // These are conditions.
        for text in
            ["iteration.k % 5 == 0", "7 %5 == 2", "max(1, 2) > 1", "'80% & a = b' == 'and'", "1u == 1u"]
        {
            assert!(Condition::parse(text).is_ok(), "{text}");
        }
    }
}
