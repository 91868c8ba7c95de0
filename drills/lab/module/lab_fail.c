// SPDX-License-Identifier: MIT
/*
 * Lets a kernel fail in the way whose name is written into /proc/lab_fail. For guests that are meant to die.
 *
 * Reading the file takes both locks of this module for a moment, so that `cat /proc/lab_fail` is one more task
 * that waits where one of them is held.
 */
#include <linux/completion.h>
#include <linux/console.h>
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/init.h>
#include <linux/irq_work.h>
#include <linux/jiffies.h>
#include <linux/kernel.h>
#include <linux/kmod.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/proc_fs.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/rtmutex.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/semaphore.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/timer.h>
#include <linux/uaccess.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#define FILE_NAME "lab_fail"

struct failure {
	const char *name;
	void (*happen)(void);
};

struct leaked {
	struct list_head list;
	char room[496];
};

static DEFINE_MUTEX(lab_mutex_a);
static DEFINE_MUTEX(lab_mutex_b);
static DECLARE_RWSEM(lab_rwsem);
static DECLARE_COMPLETION(a_is_held);
static DECLARE_COMPLETION(b_is_held);
static LIST_HEAD(leak);

/* Volatile, so that the compiler does not see through what happens with them. */
static struct leaked *volatile nobody;
static volatile int nothing;
static volatile int bottom = INT_MAX;

static void start(int (*thread)(void *), const char *name)
{
	struct task_struct *task = kthread_run(thread, NULL, "%s", name);

	if (IS_ERR(task))
		pr_err("lab_fail: no thread %s: %ld\n", name, PTR_ERR(task));
}

static noinline void null_deref(void)
{
	nobody->room[0] = 1;
}

static noinline void bug(void)
{
	BUG();
}

static noinline void warn(void)
{
	WARN(1, "lab_fail: a warning\n");
}

static noinline void divide(void)
{
	pr_info("lab_fail: %d\n", bottom / nothing);
}

static noinline void general_protection(void)
{
	/* Neither with four nor with five levels of page tables is this an address. */
	*(volatile int *)0x8000000000001234UL = 1;
}

static noinline int deeper(int depth)
{
	volatile char room[400];

	room[depth % sizeof(room)] = 1;
	if (depth == bottom)
		return 0;
	return deeper(depth + 1) + room[0];
}

static noinline void stack_overflow(void)
{
	pr_info("lab_fail: %d\n", deeper(0));
}

static void timer_ends(struct timer_list *unused)
{
	panic("lab_fail: panic in a timer");
}

static DEFINE_TIMER(lab_timer, timer_ends);

static void softirq(void)
{
	mod_timer(&lab_timer, jiffies + HZ / 10);
}

static void irq_work_runs(struct irq_work *unused)
{
	panic("lab_fail: panic in an interrupt");
}

static struct irq_work lab_irq_work;

static void hardirq(void)
{
	init_irq_work(&lab_irq_work, irq_work_runs);
	irq_work_queue(&lab_irq_work);
}

static noinline void spin(void)
{
	for (;;)
		cpu_relax();
}

static noinline void soft_lockup(void)
{
	preempt_disable();
	spin();
}

static void spin_without_interrupts(void *unused)
{
	spin();
}

/* On CPU 0, the only one that QEMU's NMI reaches. Functions called this way run with interrupts off. */
static noinline void hard_lockup(void)
{
	smp_call_function_single(0, spin_without_interrupts, NULL, 0);
}

static noinline void rcu_stall(void)
{
	rcu_read_lock();
	preempt_disable();
	spin();
}

static noinline int lock_a_then_b(void *unused)
{
	mutex_lock(&lab_mutex_a);
	complete(&a_is_held);
	wait_for_completion(&b_is_held);
	mutex_lock(&lab_mutex_b);
	return 0;
}

static noinline int lock_b_then_a(void *unused)
{
	mutex_lock(&lab_mutex_b);
	complete(&b_is_held);
	wait_for_completion(&a_is_held);
	mutex_lock(&lab_mutex_a);
	return 0;
}

static void mutex_abba(void)
{
	start(lock_a_then_b, "lab_a_then_b");
	start(lock_b_then_a, "lab_b_then_a");
}

static noinline int hold_mutex(void *unused)
{
	mutex_lock(&lab_mutex_a);
	complete(&a_is_held);
	while (!kthread_should_stop())
		msleep_interruptible(1000000);
	return 0;
}

static noinline int want_mutex(void *unused)
{
	mutex_lock(&lab_mutex_a);
	return 0;
}

static void mutex_held(void)
{
	start(hold_mutex, "lab_owner");
	wait_for_completion(&a_is_held);
	start(want_mutex, "lab_waiter_1");
	start(want_mutex, "lab_waiter_2");
	start(want_mutex, "lab_waiter_3");
}

static noinline int hold_rwsem(void *unused)
{
	down_write(&lab_rwsem);
	complete(&a_is_held);
	while (!kthread_should_stop())
		msleep_interruptible(1000000);
	return 0;
}

static noinline int read_rwsem(void *unused)
{
	down_read(&lab_rwsem);
	return 0;
}

static noinline int write_rwsem(void *unused)
{
	down_write(&lab_rwsem);
	return 0;
}

static void rwsem_held(void)
{
	start(hold_rwsem, "lab_owner");
	wait_for_completion(&a_is_held);
	start(read_rwsem, "lab_reader_1");
	start(read_rwsem, "lab_reader_2");
	start(write_rwsem, "lab_writer");
}

static void construct(void *object)
{
	memset(object, 0x5a, sizeof(struct leaked));
}

static noinline void slab_leak(void)
{
	/* With a constructor it shares its slabs with no other cache. */
	struct kmem_cache *cache = kmem_cache_create("lab_leak", sizeof(struct leaked), 0, 0, construct);
	struct leaked *one;

	while (cache && (one = kmem_cache_alloc(cache, GFP_KERNEL)))
		list_add(&one->list, &leak);
}

static DEFINE_RT_MUTEX(lab_rt_mutex);
static struct semaphore lab_semaphore;
static DECLARE_COMPLETION(lab_never);
static DECLARE_WAIT_QUEUE_HEAD(lab_queue);
static DECLARE_COMPLETION(all_is_held);
static struct page *lab_page;
static struct workqueue_struct *lab_works, *lab_ordered;
static struct work_struct lab_stuck, lab_first, lab_second;

static noinline void work_wants_mutex(struct work_struct *unused)
{
	mutex_lock(&lab_mutex_a);
}

static noinline int hold_all(void *unused)
{
	mutex_lock(&lab_mutex_a);
	rt_mutex_lock(&lab_rt_mutex);
	down(&lab_semaphore);
	lock_page(lab_page);
	complete(&all_is_held);
	while (!kthread_should_stop())
		msleep_interruptible(1000000);
	return 0;
}

static noinline int want_rt_mutex(void *unused)
{
	rt_mutex_lock(&lab_rt_mutex);
	return 0;
}

static noinline int want_semaphore(void *unused)
{
	down(&lab_semaphore);
	return 0;
}

static noinline int want_page(void *unused)
{
	lock_page(lab_page);
	return 0;
}

static noinline int want_completion(void *unused)
{
	wait_for_completion(&lab_never);
	return 0;
}

static noinline int want_event(void *unused)
{
	wait_event(lab_queue, nothing);
	return 0;
}

static noinline int flush_running(void *unused)
{
	flush_work(&lab_stuck);
	return 0;
}

static noinline int flush_inactive(void *unused)
{
	flush_work(&lab_second);
	return 0;
}

static noinline int flush_queue(void *unused)
{
	flush_workqueue(lab_works);
	return 0;
}

/* What no reader may do, and the kernel warns of it. */
static noinline int read_and_sleep(void *unused)
{
	rcu_read_lock();
	while (!kthread_should_stop())
		msleep_interruptible(1000000);
	rcu_read_unlock();
	return 0;
}

static noinline int want_grace_period(void *unused)
{
	synchronize_rcu();
	return 0;
}

/* From here on no kernel message gets to the console. */
static noinline int hold_console(void *unused)
{
	console_lock();
	complete(&b_is_held);
	pr_info("lab_fail: the console does not show this\n");
	while (!kthread_should_stop())
		msleep_interruptible(1000000);
	console_unlock();
	return 0;
}

static noinline int want_console(void *unused)
{
	console_lock();
	return 0;
}

/* One task for each thing that can be waited for. */
static void waits(void)
{
	sema_init(&lab_semaphore, 1);
	lab_page = alloc_page(GFP_KERNEL);
	lab_works = alloc_workqueue("lab_works", 0, 0);
	lab_ordered = alloc_ordered_workqueue("lab_ordered", 0);
	if (!lab_page || !lab_works || !lab_ordered)
		return;
	start(hold_all, "lab_owner");
	wait_for_completion(&all_is_held);
	INIT_WORK(&lab_stuck, work_wants_mutex);
	INIT_WORK(&lab_first, work_wants_mutex);
	INIT_WORK(&lab_second, work_wants_mutex);
	queue_work(lab_works, &lab_stuck);
	queue_work(lab_ordered, &lab_first);
	queue_work(lab_ordered, &lab_second);
	msleep(100);
	start(flush_running, "lab_flush_1");
	start(flush_inactive, "lab_flush_2");
	start(flush_queue, "lab_flush_wq");
	start(want_rt_mutex, "lab_rt_mutex");
	start(want_semaphore, "lab_semaphore");
	start(want_page, "lab_page");
	start(want_completion, "lab_completion");
	start(want_event, "lab_event");
	start(read_and_sleep, "lab_rcu_reader");
	msleep(100);
	start(want_grace_period, "lab_rcu_sync");
	start(hold_console, "lab_console");
	wait_for_completion(&b_is_held);
	start(want_console, "lab_console_2");
}

static void answer(void *unused)
{
}

static noinline int want_grace_period_soon(void *unused)
{
	msleep(1500);
	synchronize_rcu();
	return 0;
}

/* CPU 0 takes no interrupts from here on, and CPU 1 wants its answer. */
static noinline int want_answer(void *unused)
{
	smp_call_function_single(0, spin_without_interrupts, NULL, 0);
	msleep(2500);
	smp_call_function_single(0, answer, NULL, 1);
	return 0;
}

static void start_on(int (*thread)(void *), const char *name, int cpu)
{
	struct task_struct *task = kthread_create(thread, NULL, "%s", name);

	if (IS_ERR(task))
		return;
	kthread_bind(task, cpu);
	wake_up_process(task);
}

static void ipi(void)
{
	start_on(want_grace_period_soon, "lab_rcu_sync", 1);
	start_on(want_answer, "lab_ipi", 1);
}

/* A driver that forgot to set one of its callbacks. */
static void (*volatile no_callback)(void);

static noinline void null_call(void)
{
	no_callback();
	pr_info("lab_fail: it came back\n");
}

static char data[64];

static noinline void execute_data(void)
{
	void (*volatile callback)(void) = (void (*)(void))data;

	callback();
	pr_info("lab_fail: it came back\n");
}

static const int constant = 1;

static noinline void read_only(void)
{
	*(volatile int *)&constant = 2;
}

static noinline void list_corruption(void)
{
	struct leaked *one = kzalloc(sizeof(*one), GFP_KERNEL);

	if (!one)
		return;
	list_add(&one->list, &leak);
	list_del(&one->list);
	list_del(&one->list);
}

static noinline void double_free(void)
{
	void *volatile one = kmalloc(512, GFP_KERNEL);

	kfree(one);
	kfree(one);
}

/* With slub_debug=P what is freed holds the poison, which is no address. */
static noinline void use_after_free(void)
{
	struct leaked *one = kzalloc(sizeof(*one), GFP_KERNEL);
	struct leaked *volatile stale = one;

	if (!one)
		return;
	INIT_LIST_HEAD(&one->list);
	kfree(one);
	stale->list.next->prev = NULL;
}

static noinline void smash(char *volatile room, int bytes)
{
	memset(room, 0x41, bytes);
}

static noinline void stack_smash(void)
{
	char room[32];

	smash(room, sizeof(room) + 32);
}

static void irq_work_bug(struct irq_work *unused)
{
	BUG();
}

static void irq_bug(void)
{
	init_irq_work(&lab_irq_work, irq_work_bug);
	irq_work_queue(&lab_irq_work);
}

static DEFINE_SPINLOCK(lab_spinlock);

static noinline void lock_twice(void)
{
	spin_lock(&lab_spinlock);
	spin_lock(&lab_spinlock);
}

/* What only a PREEMPT_RT kernel forgives. */
static noinline int sleep_with_spinlock(void *unused)
{
	spin_lock(&lab_spinlock);
	complete(&a_is_held);
	while (!kthread_should_stop())
		msleep_interruptible(1000000);
	return 0;
}

static noinline int want_spinlock(void *unused)
{
	spin_lock(&lab_spinlock);
	return 0;
}

static void spinlock_held(void)
{
	start(sleep_with_spinlock, "lab_owner");
	wait_for_completion(&a_is_held);
	msleep(100);
	start(want_spinlock, "lab_waiter_1");
}

static noinline int hold_rwsem_to_read(void *unused)
{
	down_read(&lab_rwsem);
	complete(&a_is_held);
	while (!kthread_should_stop())
		msleep_interruptible(1000000);
	return 0;
}

static void rwsem_read(void)
{
	start(hold_rwsem_to_read, "lab_owner");
	wait_for_completion(&a_is_held);
	start(write_rwsem, "lab_writer");
	msleep(100);
	start(read_rwsem, "lab_reader_1");
}

static atomic_t ready;

static noinline int oops_together(void *unused)
{
	atomic_inc(&ready);
	while (atomic_read(&ready) < 2)
		cpu_relax();
	null_deref();
	return 0;
}

static void two_oopses(void)
{
	start_on(oops_together, "lab_oops_0", 0);
	start_on(oops_together, "lab_oops_1", 1);
}

static refcount_t count = REFCOUNT_INIT(1);

static noinline void refcount(void)
{
	if (!refcount_dec_and_test(&count) || !refcount_dec_and_test(&count))
		pr_info("lab_fail: it is not taken back\n");
}

static bool fail_in_exit;

static void module_exit_fails(void)
{
	static char *arguments[] = { "/bin/rmmod", "lab_fail", NULL };
	static char *environment[] = { "PATH=/bin", NULL };

	fail_in_exit = true;
	call_usermodehelper(arguments[0], arguments, environment, UMH_NO_WAIT);
}

static const struct failure failures[] = {
	{ "null-deref", null_deref },
	{ "bug", bug },
	{ "warn", warn },
	{ "divide", divide },
	{ "general-protection", general_protection },
	{ "stack-overflow", stack_overflow },
	{ "softirq", softirq },
	{ "hardirq", hardirq },
	{ "soft-lockup", soft_lockup },
	{ "hard-lockup", hard_lockup },
	{ "rcu-stall", rcu_stall },
	{ "mutex-abba", mutex_abba },
	{ "mutex-held", mutex_held },
	{ "rwsem-held", rwsem_held },
	{ "slab-leak", slab_leak },
	{ "waits", waits },
	{ "ipi", ipi },
	{ "null-call", null_call },
	{ "execute-data", execute_data },
	{ "read-only", read_only },
	{ "list-corruption", list_corruption },
	{ "double-free", double_free },
	{ "use-after-free", use_after_free },
	{ "stack-smash", stack_smash },
	{ "irq-bug", irq_bug },
	{ "lock-twice", lock_twice },
	{ "spinlock-held", spinlock_held },
	{ "rwsem-read", rwsem_read },
	{ "two-oopses", two_oopses },
	{ "refcount", refcount },
	{ "module-exit", module_exit_fails },
};

static ssize_t lab_write(struct file *file, const char __user *from, size_t len, loff_t *at)
{
	char word[32] = "";
	size_t i;

	if (len >= sizeof(word) || copy_from_user(word, from, len))
		return -EINVAL;
	strim(word);
	for (i = 0; i < ARRAY_SIZE(failures); i++) {
		if (strcmp(word, failures[i].name))
			continue;
		pr_info("lab_fail: now %s\n", word);
		failures[i].happen();
		return len;
	}
	return -ENOENT;
}

static ssize_t lab_read(struct file *file, char __user *to, size_t len, loff_t *at)
{
	mutex_lock(&lab_mutex_a);
	down_read(&lab_rwsem);
	up_read(&lab_rwsem);
	mutex_unlock(&lab_mutex_a);
	return 0;
}

static const struct proc_ops lab_ops = {
	.proc_write = lab_write,
	.proc_read = lab_read,
};

static int __init lab_init(void)
{
	return proc_create(FILE_NAME, 0600, NULL, &lab_ops) ? 0 : -ENOMEM;
}

static void __exit lab_exit(void)
{
	remove_proc_entry(FILE_NAME, NULL);
	if (fail_in_exit)
		null_deref();
}

module_init(lab_init);
module_exit(lab_exit);
MODULE_DESCRIPTION("Lets a guest's kernel fail in a chosen way");
MODULE_LICENSE("Dual MIT/GPL");
