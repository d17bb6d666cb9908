// Numbers, money, spans and moments, written as endpoints/templatetags/formats.py writes them.
export const ABSENT = "—";
const SYMBOLS = { INR: "₹", USD: "$", EUR: "€", GBP: "£" };
const known = (value) => typeof value === "number" && Number.isFinite(value);
const plain = (value, places) =>
  value.toLocaleString("en-US", { minimumFractionDigits: 0, maximumFractionDigits: places });

export function bytes(value) {
  if (!known(value)) return ABSENT;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let place = 0;
  while (Math.abs(value) >= 1023.95 && place < 4) {
    value /= 1024;
    place += 1;
  }
  return `${plain(value, place === 0 || Math.abs(value) >= 100 ? 0 : 1)} ${units[place]}`;
}

export function duration(seconds) {
  if (!known(seconds) || seconds < 0) return ABSENT;
  if (seconds > 0 && seconds < 0.9995) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 9.95) return `${plain(seconds, 1)} s`;
  const whole = Math.round(seconds);
  for (const [large, small, step, part] of [["d", "h", 86400, 3600], ["h", "m", 3600, 60], ["m", "s", 60, 1]]) {
    if (whole < step) continue;
    const rest = Math.floor((whole % step) / part);
    return `${Math.floor(whole / step)} ${large}${rest ? ` ${rest} ${small}` : ""}`;
  }
  return `${whole} s`;
}

export function milliseconds(value) {
  if (!known(value)) return ABSENT;
  return value >= 10000 ? `${plain(value / 1000, 1)} s` : `${plain(value, value < 10 ? 1 : 0)} ms`;
}

export function percent(value) {
  if (!known(value)) return ABSENT;
  const size = Math.abs(value);
  return `${plain(value, size > 0 && size < 1 ? 2 : size < 10 ? 1 : 0)} %`;
}

export function number(value) {
  if (!known(value)) return ABSENT;
  const size = Math.abs(value);
  return plain(value, size < 10 ? 2 : size < 100 ? 1 : 0);
}

export function money(value, currency = "INR") {
  if (!known(value)) return ABSENT;
  const symbol = SYMBOLS[currency] ?? `${currency} `;
  const size = Math.abs(value);
  const sign = value < 0 ? "-" : "";
  if (size > 0 && size < 0.01) {
    const places = Math.min(8, 1 - Math.floor(Math.log10(size)));
    return `${sign}${symbol}${plain(size, places)}`;
  }
  const text = size.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  return `${sign}${symbol}${text}`;
}

export const rate = (value, currency) => (known(value) ? `${money(value, currency)}/h` : ABSENT);

export function distance(then, now) {
  const seconds = Math.round((now - then) / 1000);
  const span = Math.abs(seconds);
  if (span < 2) return "just now";
  const [unit, length] = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]].find(([, size]) => span >= size);
  const text = `${Math.floor(span / length)} ${unit}`;
  return seconds > 0 ? `${text} ago` : `in ${text}`;
}

export function minute(when) {
  const day = when.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });
  return `${day}, ${when.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })}`;
}

export function stamp(when) {
  const day = when.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });
  return `${day}, ${when.toLocaleTimeString("en-GB", { timeZoneName: "short" })}`;
}

// A bare number goes where the unit already stands beside the value ("847" and "ms").
const FORMATS = {
  bytes, percent, money, rate, number, ms: milliseconds, s: duration,
  bare: (value) => (known(value) ? plain(value, Math.abs(value) < 10 ? 2 : 0) : ABSENT),
};

// `value` in the format of that name; text stays as the server wrote it.
export function format(value, name) {
  return typeof value === "string" ? value : (FORMATS[name] ?? number)(value);
}
