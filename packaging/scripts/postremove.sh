#!/bin/sh
# After removing, by dpkg ("remove", later "purge") and rpm (0).
set -e
case $1 in
remove | 0)
	rm -rf /run/tapgw
	if test -d /run/systemd/system; then
		systemctl daemon-reload
	fi
	;;
purge)
	rm -rf /var/lib/tapgw /etc/tapgw
	if getent passwd tapgw >/dev/null; then
		userdel tapgw
	fi
	if getent group tapgw >/dev/null; then
		groupdel tapgw
	fi
	;;
esac
