#!/bin/sh
# Before removing, by dpkg ("remove") and rpm (0). An upgrade starts the gateway again when all is in place.
set -e
case $1 in
remove | 0)
	if test -d /run/systemd/system; then
		systemctl stop tapgw.service
	fi
	if command -v systemctl >/dev/null; then
		systemctl --no-reload disable tapgw.service
	fi
	tapgw cleanup >/dev/null || true # one that was started by hand goes on
	;;
esac
