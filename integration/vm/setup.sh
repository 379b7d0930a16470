# Runs in the root of the new file system, as the last step of its making.
set -eu

echo v6node-test > /etc/hostname
printf '127.0.0.1 localhost v6node-test\n::1 localhost\n' > /etc/hosts
cat > /etc/fstab <<'EOF'
/dev/vda / ext4 defaults 0 0
/dev/vdb /payload ext4 ro,nosuid 0 0
EOF
mkdir /payload

# The unprivileged user: subordinate IDs, and a systemd that starts with the
# machine and has every controller that a rootless runtime can use.
useradd --create-home --uid 1000 --shell /bin/bash hpc
grep -q '^hpc:' /etc/subuid && grep -q '^hpc:' /etc/subgid
mkdir -p /var/lib/systemd/linger /etc/systemd/system/user@.service.d
touch /var/lib/systemd/linger/hpc
printf '[Service]\nDelegate=cpu cpuset io memory pids\n' > /etc/systemd/system/user@.service.d/delegate.conf

cat > /etc/systemd/system/v6node-test.service <<'EOF'
[Unit]
Description=The tests of v6node
RequiresMountsFor=/payload
After=dbus.service systemd-logind.service user@1000.service
Wants=user@1000.service

[Service]
Type=exec
ExecStart=/payload/vm guest
ExecStopPost=/bin/systemctl poweroff --force --force
Environment=HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
Delegate=yes

[Install]
WantedBy=multi-user.target
EOF
systemctl enable -q v6node-test.service
# Nothing that a test machine needs, and each takes time.
systemctl mask -q getty@tty1.service serial-getty@ttyS0.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
	fstrim.timer e2scrub_all.timer e2scrub_reap.service systemd-pstore.service systemd-update-utmp.service systemd-network-generator.service
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /usr/share/doc /usr/share/man /usr/share/locale
