// Package e2e runs the real daemon on real packets: each test builds a small internet of network namespaces, starts
// bin/tapgw in its gateway and looks at what hosts, providers and servers see.
package e2e
