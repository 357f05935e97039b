// SPDX-License-Identifier: GPL-2.0-only
// What goes to Go and comes back by the upcall device: received packets that are no hits but ours, and packets of the LAN
// that must not pass the host's own forwarding.
#pragma once

#include "rewrite.h"
#include "table.h"

struct mac {
	__u8 b[ETH_ALEN];
};

// The last byte of the secret source address says what a frame on the upcall device is: up to UPLINKS the number of the
// uplink that received it.
#define TAG_COPY UPLINKS       // | the number of the uplink: the host has it too
#define TAG_LAN (2 * UPLINKS)  // from the LAN; or to it, by the hop in the last byte of the destination

const volatile struct mac tap_mac;
const volatile struct mac gateway_mac;
const volatile struct mac upcall_mac;
const volatile struct mac secret;

static __always_inline void set_mac(__u8 *to, const volatile struct mac *from)
{
#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++)
		to[i] = from->b[i];
}

// is_secret reports whether a source address is one of those that only Go and these programs know.
static __always_inline int is_secret(const __u8 *mac)
{
	__u8 differ = 0;

#pragma unroll
	for (int i = 0; i < ETH_ALEN - 1; i++)
		differ |= mac[i] ^ secret.b[i];
	return !differ;
}

// label makes an Ethernet header of the upcall device, and returns that device, 0 when there is none.
static __always_inline __u32 label(enum family f, struct __sk_buff *skb, __u8 tag)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct uplink *any = uplink_of(f, 0);

	if ((void *)(eth + 1) > end || !any)
		return 0;
	set_mac(eth->h_dest, &upcall_mac);
	set_mac(eth->h_source, &secret);
	eth->h_source[ETH_ALEN - 1] = tag;
	eth->h_proto = ethertype(f);
	return any->upcall;
}

// upcall hands a packet to Go; l2 is the length of its link header.
static __always_inline int upcall(enum family f, struct __sk_buff *skb, __u32 l2, __u8 tag)
{
	if (!l2 && bpf_skb_change_head(skb, ETH_HLEN, 0))
		return TC_ACT_SHOT;
	__u32 device = label(f, skb, tag);
	return device ? bpf_redirect(device, 0) : TC_ACT_SHOT;
}

// told reports whether Go has heard of a client within this tick, and notes that it has now.
static __always_inline int told(const struct client *c)
{
	__u32 now = bpf_ktime_get_coarse_ns() >> 26;
	__u32 *last = bpf_map_lookup_elem(&clients, c);

	if (last && *last == now)
		return 1;
	bpf_map_update_elem(&clients, c, &now, BPF_ANY);
	return 0;
}

// copy tells Go of a request to a service of the host, which has the packet itself.
static __always_inline int copy(enum family f, struct __sk_buff *skb, __u8 tag)
{
	__u8 header[ETH_HLEN];

	if (bpf_skb_load_bytes(skb, 0, header, sizeof(header)))
		return TC_ACT_UNSPEC;
	__u32 device = label(f, skb, tag);
	if (device)
		bpf_clone_redirect(skb, device, 0);
	return bpf_skb_store_bytes(skb, 0, header, sizeof(header), 0) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}
