// Package archtest holds the tests that keep the house in order: which package may import which, and why.
package archtest
