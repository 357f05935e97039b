//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only
// The fast path: a cache of decisions that Go has made. A packet of a known session is rewritten, counted and redirected;
// whatever is unknown or unusual goes to Go.
#include "count.h"
#include "rewrite.h"
#include "table.h"
#include "upcall.h"

#define HOST 0                 // __sk_buff.pkt_type of what is sent to us
#define AF_INET 2              // not to need the C library's headers
#define GIVEN_BACK 0x74617067  // mark of a packet without Ethernet header that comes back from Go

const volatile __u32 tap_addr;   // of the host on the TAP, host order
const volatile __u32 uplink_id;  // of the uplink that a program is attached to

// is_current reports whether a session and its uplink are as they were when the session was opened, and Go wants it used.
static __always_inline int is_current(const struct identity *id, const struct uplink *u)
{
	__u32 state = id->own & STATE_MASK;

	if (*(volatile __u32 *)&u->generation != GENERATION(id) || !(u->flags & UPLINK_USABLE))
		return 0;
	return state >= STATE_FIRST && state <= STATE_LAST;
}

// size is that of the largest packet that a packet becomes on the wire.
static __always_inline __u32 size(const struct packet *p, __u32 gso_size)
{
	return gso_size ? p->headers + gso_size : p->len;
}

static __always_inline int send(__u32 ifindex, __u32 gateway, __u32 dst)
{
	struct bpf_redir_neigh next = {.nh_family = AF_INET, .ipv4_nh = gateway ? gateway : bpf_htonl(dst)};

	return bpf_redirect_neigh(ifindex, &next, sizeof(next), 0);
}

static __always_inline struct key outbound_key(const struct packet *p)
{
	struct key k = {
		(__u64)p->src << 32 | p->dst,
		(__u64)p->sport << 48 | (__u64)p->dport << 32 | (__u64)p->proto << 8,
	};
	return k;
}

// way is the device by which the host would forward a packet between two addresses, 0 for none. One that is too big for
// it counts too: of a datagram, the last fragment must not go another way than those before.
static __always_inline __u32 way(struct __sk_buff *skb, const struct iphdr *ip, __be32 src, __be32 dst)
{
	struct bpf_fib_lookup l = {
		.family = AF_INET, .l4_protocol = ip->protocol, .ifindex = skb->ifindex, .tos = ip->tos,
		.ipv4_src = src, .ipv4_dst = dst,
	};
	long found = bpf_fib_lookup(skb, &l, sizeof(l), 0);

	switch (found) {
	case BPF_FIB_LKUP_RET_SUCCESS:
	case BPF_FIB_LKUP_RET_NO_NEIGH:
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		return l.ifindex;
	}
	return 0;
}

// goes_astray reports whether the host would no longer forward a packet of a session to the TAP.
static __noinline int goes_astray(struct __sk_buff *skb, __u32 tap)
{
	struct iphdr ip;

	return bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || way(skb, &ip, ip.saddr, ip.daddr) != tap;
}

// forward sends a packet of a session by its uplink: TC_ACT_UNSPEC when Go must see it, which is as it was then. Where
// these programs are the router, TC_ACT_OK when the host would not forward to the TAP any more: that is looked at with the
// first packet after routes changed.
static __always_inline int forward(struct __sk_buff *skb, const struct packet *p, const struct identity *id, __u32 n, __u8 hops)
{
	__u32 gso = skb->gso_size;
	struct uplink *u = uplink_of(id->ports & 0xff);
	struct counters *c = bpf_map_lookup_elem(&counts_out, &n);

	if (!c || !u)
		return TC_ACT_UNSPEC;
	if (hops && (__s32)(*(volatile __u32 *)&c->seen - *(volatile __u32 *)&u->rerouted) <= 0 && goes_astray(skb, u->tap))
		return TC_ACT_OK;
	if (!is_current(id, u) || size(p, gso) > u->mtu)
		return TC_ACT_UNSPEC;
	struct edit e = {p->src, id->outside >> 32, p->sport, id->ports >> 16, hops};
	int done = rewrite(skb, ETH_HLEN, p, e, OUTBOUND);
	if (done != TC_ACT_OK)
		return done;
	count(c, p, gso, tick(u->clock));
	return u->flags & UPLINK_HEADERLESS ? bpf_redirect(u->ifindex, 0) : send(u->ifindex, u->gateway, p->dst);
}

// begins reports whether a packet begins a connection, or accepts one: Go fits the segment size that it announces.
static __always_inline int begins(struct __sk_buff *skb, const struct iphdr *ip)
{
	__u8 flags;

	return ip->protocol == IPPROTO_TCP && !(ip->frag_off & bpf_htons(0x3fff)) &&
	       !bpf_skb_load_bytes(skb, ETH_HLEN + ip->ihl * 4 + 13, &flags, sizeof(flags)) && flags & TCP_SYN;
}

// leave_as_it_is sends what carries an uplink's own address by that uplink: replies of the host's services and port forwards.
static __noinline int leave_as_it_is(struct __sk_buff *skb)
{
	struct iphdr ip;
	__u32 mtu = 0;

	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.version != 4)
		return TC_ACT_UNSPEC;
	__u32 src = bpf_ntohl(ip.saddr);
	__u32 *n = bpf_map_lookup_elem(&own, &src);
	struct uplink *u = n ? uplink_of(*n) : 0;
	if (!u || !(u->flags & UPLINK_READY) || begins(skb, &ip) || bpf_check_mtu(skb, u->ifindex, &mtu, 0, BPF_MTU_CHK_SEGS))
		return TC_ACT_UNSPEC;
	return u->flags & UPLINK_HEADERLESS ? bpf_redirect(u->ifindex, 0) : send(u->ifindex, u->gateway, bpf_ntohl(ip.daddr));
}

// is_bound reports whether a packet comes from a socket that replies must reach by the device: one that is bound to it and takes
// them from nowhere else, or one without a peer, as programs that have such (wireguard-go) answer by the device of the last one.
static __always_inline int is_bound(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	return sk && (sk->bound_dev_if == skb->ifindex || (skb->protocol == bpf_htons(ETH_P_IP) && !sk->dst_ip4));
}

// tap_miss leaves to Go what is neither a hit nor leaves as it is, and tells of bound sockets by the last bit of the
// destination address.
static __always_inline int tap_miss(struct __sk_buff *skb)
{
	int done = leave_as_it_is(skb);
	__u8 last = gateway_mac.b[ETH_ALEN - 1] ^ 1;

	if (done == TC_ACT_UNSPEC && is_bound(skb))
		bpf_skb_store_bytes(skb, ETH_ALEN - 1, &last, sizeof(last), 0);
	return done;
}

SEC("tc") int tap_egress(struct __sk_buff *skb)
{
	struct packet p;
	__u32 n = 0;

	if (parse(skb, ETH_HLEN, &p))
		return tap_miss(skb);
	struct identity *id = find(&index_out, outbound_key(&p), OUTBOUND, &n);
	if (!id || (HOP(id) != HOP_DEVICE && is_bound(skb)))
		return tap_miss(skb);
	return forward(skb, &p, id, n, 0);
}

// lan_upcall hands a packet of the LAN to Go as the host's own forwarding would have.
static __always_inline int lan_upcall(struct __sk_buff *skb)
{
	if (bpf_skb_pull_data(skb, ETH_HLEN + sizeof(struct iphdr)))
		return TC_ACT_UNSPEC;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;

	if ((void *)(ip + 1) > end || ip->ttl <= 1)
		return TC_ACT_UNSPEC;
	age(ip);
	return upcall(skb, ETH_HLEN, TAG_LAN);
}

// to_tap reports whether the host would forward a packet to the TAP, and answers to it back to where it came from.
static __always_inline int to_tap(struct __sk_buff *skb, const struct iphdr *ip)
{
	struct uplink *any = uplink_of(0);

	return any && way(skb, ip, ip->saddr, ip->daddr) == any->tap && way(skb, ip, ip->daddr, ip->saddr) == skb->ifindex;
}

// is_shortcut reports whether the packets of a session bypass the host's forwarding on a device of the LAN.
static __always_inline int is_shortcut(const struct identity *id, __u32 ifindex)
{
	__u32 n = HOP(id);
	struct hop *h = bpf_map_lookup_elem(&hops, &n);

	return h && *(volatile __u32 *)&h->ifindex == ifindex;
}

// lan_miss hands to Go what is no hit of a session whose other packets bypass the host, or may begin one, or is a fragment
// of it: netfilter, which sees none of the others, would misjudge it.
static __noinline int lan_miss(struct __sk_buff *skb)
{
	struct iphdr ip;
	__be16 ports[2];
	__u32 n = 0;

	if (skb->protocol != bpf_htons(ETH_P_IP) || skb->vlan_present || bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) ||
	    ip.version != 4 || ip.ihl < 5 || (ip.protocol != IPPROTO_TCP && ip.protocol != IPPROTO_UDP && ip.protocol != IPPROTO_ICMP))
		return TC_ACT_UNSPEC;
	if (ip.frag_off & bpf_htons(0x3fff))
		return to_tap(skb, &ip) ? lan_upcall(skb) : TC_ACT_UNSPEC;
	if (ip.protocol == IPPROTO_ICMP || bpf_skb_load_bytes(skb, ETH_HLEN + ip.ihl * 4, ports, sizeof(ports)))
		return TC_ACT_UNSPEC;
	struct packet p = {
		.src = bpf_ntohl(ip.saddr), .dst = bpf_ntohl(ip.daddr), .proto = ip.protocol,
		.sport = bpf_ntohs(ports[0]), .dport = bpf_ntohs(ports[1]),
	};
	struct identity *id = find(&index_out, outbound_key(&p), OUTBOUND, &n);
	if (id ? is_shortcut(id, skb->ifindex) : to_tap(skb, &ip))
		return lan_upcall(skb);
	return TC_ACT_UNSPEC;
}

// lan_ingress takes packets of sessions from the LAN past the host's own forwarding, which gets whatever is to expire here.
SEC("tc") int lan_ingress(struct __sk_buff *skb)
{
	struct packet p;
	__u32 n = 0;

	if (skb->pkt_type != HOST)
		return TC_ACT_UNSPEC;
	if (parse(skb, ETH_HLEN, &p))
		return lan_miss(skb);
	struct identity *id = find(&index_out, outbound_key(&p), OUTBOUND, &n);
	if (!id)
		return lan_miss(skb);
	if (p.ttl <= 1 || !is_shortcut(id, skb->ifindex))
		return TC_ACT_UNSPEC;
	int done = forward(skb, &p, id, n, 1);
	if (done == TC_ACT_UNSPEC)
		return lan_upcall(skb);
	return done == TC_ACT_OK ? TC_ACT_UNSPEC : done;
}

// deliver gives a packet with an Ethernet header to the host as if the imaginary router behind the TAP had sent it.
static __always_inline int deliver(struct __sk_buff *skb, __u32 tap)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > end)
		return TC_ACT_SHOT;
	set_mac(eth->h_dest, &tap_mac);
	set_mac(eth->h_source, &gateway_mac);
	eth->h_proto = bpf_htons(ETH_P_IP);
	return bpf_redirect(tap, BPF_F_INGRESS);
}

// hop_of returns the next hop of a session's replies, none when they go to the host.
static __always_inline struct hop *hop_of(__u32 n)
{
	struct hop *h = bpf_map_lookup_elem(&hops, &n);

	return h && *(volatile __u32 *)&h->ifindex ? h : 0;
}

// is_given_back reports whether a packet comes from Go.
static __always_inline int is_given_back(struct __sk_buff *skb, __u32 l2)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;

	if (l2)
		return (void *)(eth + 1) <= end && is_secret(eth->h_source);
	if (skb->mark != GIVEN_BACK)
		return 0;
	skb->mark = 0;
	return 1;
}

// not_a_hit leaves a received packet to the host, or hands it to Go when it is ours.
static __always_inline int not_a_hit(struct __sk_buff *skb, __u32 l2)
{
	if (skb->pkt_type != HOST || skb->protocol != bpf_htons(ETH_P_IP) || skb->vlan_present || is_given_back(skb, l2))
		return TC_ACT_UNSPEC;
	switch (judge(skb, l2, uplink_id)) {
	case OURS:
		return upcall(skb, l2, uplink_id);
	case SERVICE:
		return l2 ? copy(skb, TAG_COPY | uplink_id) : upcall(skb, l2, uplink_id);
	case OTHERS:
		break;
	}
	return TC_ACT_UNSPEC;
}

// received handles a packet that came in by the uplink. What is for the host itself goes on from here, as by the TAP it
// would have to queue once more.
static __always_inline int received(struct __sk_buff *skb, __u32 l2)
{
	struct packet p;
	__u32 n = 0, gso = skb->gso_size;

	if (skb->pkt_type != HOST || parse(skb, l2, &p))
		return not_a_hit(skb, l2);
	struct key k = {
		(__u64)p.dst << 32 | p.src,
		(__u64)p.sport << 32 | (__u64)p.dport << 16 | (__u64)p.proto << 8 | uplink_id,
	};
	struct identity *id = find(&index_in, k, INBOUND, &n);
	struct uplink *u = uplink_of(uplink_id);
	struct counters *c = bpf_map_lookup_elem(&counts_in, &n);
	if (!id || !u || !c || !is_current(id, u))
		return not_a_hit(skb, l2);
	__u32 tap = u->tap;
	struct hop *h = hop_of(HOP(id));
	if (h && (p.ttl <= 1 || size(&p, gso) > h->mtu))
		h = 0;
	struct edit e = {p.dst, id->addrs >> 32, p.dport, id->ports >> 48, h != 0};
	int done = rewrite(skb, l2, &p, e, INBOUND);
	if (done != TC_ACT_OK)
		return done;
	count(c, &p, gso, tick(u->clock));
	if (!h && e.to_addr == tap_addr && HOP(id) != HOP_DEVICE)
		return TC_ACT_OK;
	if (!l2 && bpf_skb_change_head(skb, ETH_HLEN, 0))
		return TC_ACT_SHOT;
	return h ? send(h->ifindex, h->gateway, e.to_addr) : deliver(skb, tap);
}

SEC("tc") int uplink_ingress(struct __sk_buff *skb)
{
	return received(skb, ETH_HLEN);
}

// uplink_ingress_headerless is for PPP, WWAN and TUN, whose packets get an Ethernet header.
SEC("tc") int uplink_ingress_headerless(struct __sk_buff *skb)
{
	return received(skb, 0);
}

// give_back makes a packet appear as received by the uplink.
static __always_inline int give_back(struct __sk_buff *skb, struct ethhdr *eth, __u32 n)
{
	struct uplink *u = uplink_of(n);

	if (!u || !u->ifindex)
		return TC_ACT_UNSPEC;
	if (u->flags & UPLINK_HEADERLESS)
		skb->mark = GIVEN_BACK;
#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++)
		eth->h_dest[i] = u->mac[i];
	return bpf_redirect(u->ifindex, BPF_F_INGRESS);
}

// fits reports whether the host behind a hop can get a packet, or the segments of a super-packet, as it is.
static __always_inline int fits(struct __sk_buff *skb, __u32 mtu)
{
	struct packet p;
	__be16 len;

	if (skb->gso_size)
		return !parse(skb, ETH_HLEN, &p) && size(&p, skb->gso_size) <= mtu;
	return !bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, tot_len), &len, sizeof(len)) && bpf_ntohs(len) <= mtu;
}

// to_lan sends a translated packet by the next hop of its session; what is to expire here is the host's.
static __always_inline int to_lan(struct __sk_buff *skb, __u32 n)
{
	struct hop *h = hop_of(n);
	struct uplink *any = uplink_of(0);
	int fit = h && fits(skb, h->mtu);
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;

	if ((void *)(ip + 1) > end || !any)
		return TC_ACT_SHOT;
	if (!h || !fit || ip->ttl <= 1)
		return deliver(skb, any->tap);
	age(ip);
	return send(h->ifindex, h->gateway, bpf_ntohl(ip->daddr));
}

// upcall_ingress takes what Go writes to the upcall device.
SEC("tc") int upcall_ingress(struct __sk_buff *skb)
{
	if (bpf_skb_pull_data(skb, skb->len < ETH_HLEN + sizeof(struct iphdr) ? skb->len : ETH_HLEN + sizeof(struct iphdr)))
		return TC_ACT_UNSPEC;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > end || !is_secret(eth->h_source))
		return TC_ACT_UNSPEC;
	__u8 tag = eth->h_source[ETH_ALEN - 1];
	if (tag < UPLINKS)
		return give_back(skb, eth, tag);
	return tag == TAG_LAN ? to_lan(skb, eth->h_dest[ETH_ALEN - 1]) : TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "GPL";
