// SPDX-License-Identifier: GPL-2.0-only
// Which answers to a SYN need nothing of Go.
#pragma once

#include "count.h"
#include "rewrite.h"
#include "table.h"

#define OPTION_MSS 2  // RFC 9293 section 3.2
#define OPTION_MSS_LEN 4

// fits_segments reports whether a segment begins its options with a segment size that fits an MTU, so that none is to be lowered.
static __always_inline int fits_segments(enum family f, struct __sk_buff *skb, __u32 l2, const struct packet *p, __u32 mtu)
{
	__u32 headers = header(f) + TCP_MIN;
	struct {
		__u8 kind, len;
		__be16 size;
	} o;

	if (p->headers < headers + sizeof(o) || bpf_skb_load_bytes(skb, l2 + headers, &o, sizeof(o)))
		return 0;
	return o.kind == OPTION_MSS && o.len == OPTION_MSS_LEN && headers + bpf_ntohs(o.size) <= mtu;
}

// is_plain_answer reports whether a SYN-ACK is the first answer to the SYN of a session, has nothing to be changed by Go, and is not
// the first by its uplink in this tick: from that one Go knows that remotes answer, and how long they take.
static __always_inline int is_plain_answer(enum family f, struct __sk_buff *skb, __u32 l2, const struct packet *p, const struct identity *id,
					   __u32 n, struct uplink *u)
{
	struct counters *out = counts(f, OUTBOUND, n), *in = counts(f, INBOUND, n);
	__u32 now = tick(u->clock);

	if (!out || !in || (id->own & STATE_MASK) != STATE_OPENING)
		return 0;
	if ((*(volatile __u64 *)&out->bytes | *(volatile __u64 *)&in->bytes) & ACK_SEEN || *(volatile __u32 *)&out->seq_end != p->ack)
		return 0;
	if (!fits_segments(f, skb, l2, p, u->mtu))
		return 0;
	if (*(volatile __u32 *)&u->answered == now)
		return 1;
	*(volatile __u32 *)&u->answered = now;
	return 0;
}
