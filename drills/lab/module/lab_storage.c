// SPDX-License-Identifier: MIT
/*
 * Makes block devices that stand on others, by the kernel's own ioctls; runs without libraries of its own.
 *
 *   lab_storage dm NAME "START LENGTH TYPE ARGUMENTS"   a device-mapper device, as dmsetup create does
 *   lab_storage suspend NAME                            suspends it, without a file system to freeze
 *   lab_storage message NAME TEXT                       a message to its target, such as fail_path 7:0
 *   lab_storage raid1 MD DEVICE DEVICE                  an array without superblocks, as mdadm --build does
 *   lab_storage faulty MD DEVICE                        takes a member out of work
 *   lab_storage write DEVICE COUNT                      COUNT processes that write 64 KiB each, past the page cache
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <linux/major.h>
#include <linux/raid/md_p.h>
#include <linux/raid/md_u.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define LENGTH (64 << 10)

static int fail(const char *what)
{
	printf("lab_storage: %s: %s\n", what, strerror(errno));
	return 1;
}

static union {
	struct dm_ioctl head;
	char bytes[4096];
} order;

static int dm(unsigned long command, const char *name, unsigned int flags)
{
	static int control = -1;

	if (control < 0)
		control = open("/dev/mapper/control", O_RDWR);
	order.head.version[0] = DM_VERSION_MAJOR;
	order.head.data_size = sizeof(order);
	order.head.data_start = sizeof(order.head);
	order.head.flags = flags;
	snprintf(order.head.name, sizeof(order.head.name), "%s", name);
	return ioctl(control, command, &order);
}

static int dm_create(const char *name, const char *table)
{
	struct dm_target_spec *spec = (void *)(order.bytes + sizeof(order.head));
	unsigned long long start, length;
	int taken;

	if (dm(DM_DEV_CREATE, name, 0))
		return fail("create");
	memset(&order, 0, sizeof(order));
	if (sscanf(table, "%llu %llu %15s %n", &start, &length, spec->target_type, &taken) < 3)
		return fail("table");
	spec->sector_start = start;
	spec->length = length;
	strcpy((char *)(spec + 1), table + taken);
	order.head.target_count = 1;
	if (dm(DM_TABLE_LOAD, name, 0))
		return fail("load");
	memset(&order, 0, sizeof(order));
	return dm(DM_DEV_SUSPEND, name, 0) ? fail("resume") : 0;
}

static int dm_message(const char *name, const char *text)
{
	struct dm_target_msg *message = (void *)(order.bytes + sizeof(order.head));

	strcpy(message->message, text);
	return dm(DM_TARGET_MSG, name, 0) ? fail("message") : 0;
}

static int raid1(const char *md, char **devices, int count)
{
	mdu_array_info_t array = { .major_version = 0, .minor_version = 90, .level = 1, .not_persistent = 1 };
	mdu_param_t none = { 0 };
	struct stat stat_of;
	int fd = open(md, O_RDWR);

	array.raid_disks = array.nr_disks = array.active_disks = array.working_disks = count;
	array.size = 8 << 10;
	array.state = 1 << MD_SB_CLEAN;
	if (fd < 0 || ioctl(fd, SET_ARRAY_INFO, &array))
		return fail("array");
	for (int i = 0; i < count; i++) {
		mdu_disk_info_t disk = { .number = i, .raid_disk = i };

		if (stat(devices[i], &stat_of))
			return fail(devices[i]);
		disk.major = major(stat_of.st_rdev);
		disk.minor = minor(stat_of.st_rdev);
		disk.state = 1 << MD_DISK_ACTIVE | 1 << MD_DISK_SYNC;
		if (ioctl(fd, ADD_NEW_DISK, &disk))
			return fail("member");
	}
	return ioctl(fd, RUN_ARRAY, &none) ? fail("run") : 0;
}

static int faulty(const char *md, const char *device)
{
	struct stat stat_of;
	int fd = open(md, O_RDWR);

	if (fd < 0 || stat(device, &stat_of))
		return fail(device);
	return ioctl(fd, SET_DISK_FAULTY, (unsigned long)stat_of.st_rdev) ? fail("faulty") : 0;
}

static int write_to(const char *device, int count)
{
	for (int i = 0; i < count; i++) {
		void *bytes;
		int fd;

		if (fork())
			continue;
		fd = open(device, O_RDWR | O_DIRECT);
		if (fd < 0 || posix_memalign(&bytes, 4096, LENGTH))
			return fail(device);
		memset(bytes, 0x5a, LENGTH);
		return pwrite(fd, bytes, LENGTH, (off_t)i * 2 * LENGTH) == LENGTH ? 0 : fail("write");
	}
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	setbuf(stdout, NULL);
	if (!strcmp(what, "dm") && argc == 4)
		return dm_create(argv[2], argv[3]);
	if (!strcmp(what, "suspend") && argc == 3)
		return dm(DM_DEV_SUSPEND, argv[2], DM_SUSPEND_FLAG | DM_SKIP_LOCKFS_FLAG) ? fail(what) : 0;
	if (!strcmp(what, "message") && argc == 4)
		return dm_message(argv[2], argv[3]);
	if (!strcmp(what, "raid1") && argc > 3)
		return raid1(argv[2], argv + 3, argc - 3);
	if (!strcmp(what, "faulty") && argc == 4)
		return faulty(argv[2], argv[3]);
	if (!strcmp(what, "write") && argc == 4)
		return write_to(argv[2], atoi(argv[3]));
	printf("lab_storage: no such order\n");
	return 2;
}
