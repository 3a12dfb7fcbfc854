/** Weights of heads as the record's bytes: fetched by step, layer and head, and kept for a while. */

const MOST_KEPT = 64 * 2 ** 20;
const MOST_ENTRIES = 400;

export function unpack(text) {
  // A browser without fromBase64 takes ten times as long to go through the characters.
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let at = 0; at < bytes.length; at += 1) bytes[at] = characters.charCodeAt(at);
  return bytes;
}

/** The weight of a byte: a byte is 255 times the root of it. */
export function weightOf(code) {
  return (code / 255) ** 2;
}

/** The row of a query as weights. */
export function rowOf({ codes, keys }, query) {
  return [...codes.subarray(query * keys, (query + 1) * keys)].map(weightOf);
}

/** The places of the largest absolute values. */
export function largest(values, count) {
  const places = [];
  values.forEach((value, at) => {
    if (places.length === count && Math.abs(value) <= Math.abs(values[places.at(-1)])) return;
    const before = places.findIndex((place) => Math.abs(values[place]) < Math.abs(value));
    places.splice(before < 0 ? places.length : before, 0, at);
    places.length = Math.min(places.length, count);
  });
  return places;
}

/** What a picture is for somebody who cannot see it: the chosen token's largest weights. */
export function summary(values, axes, query, count = 3) {
  const most = largest(values, count).map((key) => `${axes.keys[key]} ${values[key].toFixed(2)}`);
  return `${axes.queries[query]}: ${most.join(", ")}`;
}

/** Fetches maps; what was fetched last is kept. An address that is asked twice is fetched once. */
export class Maps {
  #kept = new Map();
  #size = 0;

  async #fetched(address) {
    const response = await fetch(address);
    if (!response.ok) throw new Error((await response.text()).trim());
    return response.json();
  }

  /** The map that an address has, if it is here. */
  peek(address) {
    return this.#kept.get(address)?.value;
  }

  #keep(address, load) {
    const kept = this.#kept.get(address);
    if (kept) {
      // The order of a Map is the order of insertion: the oldest goes first.
      this.#kept.delete(address);
      this.#kept.set(address, kept);
      return kept.promise;
    }
    const entry = { value: null, size: 0 };
    entry.promise = load().then((value) => {
      entry.value = value;
      entry.size = value.size;
      this.#size += this.#kept.get(address) === entry ? value.size : 0;
      this.#forget(address);
      return value;
    }, (error) => {
      if (this.#kept.get(address) === entry) this.#kept.delete(address);
      throw error;
    });
    this.#kept.set(address, entry);
    return entry.promise;
  }

  #forget(newest) {
    for (const [address, { size }] of this.#kept) {
      if (this.#size <= MOST_KEPT && this.#kept.size <= MOST_ENTRIES) return;
      if (address === newest) continue;
      this.#kept.delete(address);
      this.#size -= size;
    }
  }

  /** One head at one step. */
  head(query) {
    const address = Maps.address("/api/pattern", query);
    return this.#keep(address, async () => {
      const { codes, queries, keys, step } = await this.#fetched(address);
      const bytes = unpack(codes);
      return { codes: bytes, queries, keys, step, size: bytes.length };
    });
  }

  /** The small pictures of all heads at one step, and their measures. */
  small(query) {
    const address = Maps.address("/api/heads-at", query);
    return this.#keep(address, async () => {
      const { layers, step } = await this.#fetched(address);
      const unpacked = layers.map((layer) => ({ ...layer, codes: unpack(layer.codes) }));
      const size = unpacked.reduce((sum, layer) => sum + layer.codes.length, 0);
      return { step, layers: new Map(unpacked.map((layer) => [layer.key, layer])), size };
    });
  }

  /** Forget what was fetched of some kind of weights. */
  forget(part) {
    for (const [address, { size }] of this.#kept) {
      if (!address.includes(part)) continue;
      this.#kept.delete(address);
      this.#size -= size;
    }
  }

  static address(path, query) {
    const present = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
    return `${path}?${new URLSearchParams(present)}`;
  }
}
