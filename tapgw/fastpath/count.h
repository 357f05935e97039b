// SPDX-License-Identifier: GPL-2.0-only
// What a packet leaves in the counters of its session, with nat/tcp.go as the model.
#pragma once

#include "rewrite.h"
#include "table.h"

// advance moves a sequence number forward, or anywhere at the start of a connection.
static __always_inline void advance(__u32 *to, __u32 seq, int first)
{
	__u32 old = *(volatile __u32 *)to;

	if ((first && old != seq) || (__s32)(seq - old) > 0)
		*(volatile __u32 *)to = seq;
}

// track is what nat/tcp.go notes of a segment that is neither SYN nor RST.
static __always_inline void track(struct counters *c, const struct packet *p)
{
	__u64 shown = *(volatile __u64 *)&c->bytes, seen = 0;
	int first = !(shown & ACK_SEEN);

	advance(&c->seq_end, p->seq_end, first);
	if (p->flags & TCP_ACK) {
		advance(&c->ack, p->ack, first);
		seen |= ACK_SEEN;
	}
	if (p->flags & TCP_FIN && p->seq_end == *(volatile __u32 *)&c->seq_end)
		seen |= FIN_SEEN;
	if ((shown & seen) != seen)
		__sync_fetch_and_or(&c->bytes, seen);
}

static __always_inline __u32 tick(__u64 clock)
{
	return (bpf_ktime_get_coarse_ns() + clock) >> 26;
}

// count notes a packet, or the segments of a super-packet. Go counts in the same words, so all is atomic.
static __always_inline void count(struct counters *c, const struct packet *p, __u32 gso_size, __u32 now)
{
	__sync_fetch_and_add(&c->bytes, p->len);
	__sync_fetch_and_add(&c->packets, gso_size ? (p->len + gso_size - 1) / gso_size : 1);
	if (p->proto == IPPROTO_TCP)
		track(c, p);
	if (*(volatile __u32 *)&c->seen != now)
		*(volatile __u32 *)&c->seen = now;
}
