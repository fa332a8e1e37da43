#!/usr/bin/env bash
# What build changes in govmomi's own files, each with its reason. Sourced by build, which knows
# `patch`: a file, and expressions that must each change something.

# One lock for all (see overlay/world.go) instead of one per object.
patch registry.go \
    's/^var enableLocker = .*/var enableLocker = false/' \
    's/^\t"os"$//'

# A SOAP call holds the world from its session's look-up until its answer is encoded, and goes
# through vadpServe. Without a session hardly anything may be read.
patch simulator.go \
    's/^\tctx.Map.WithLock(s.sm, ctx.mapSession)$/\tleave := Enter()\n\tdefer leave()\n&/' \
    's/^\t\tres = s.call(ctx, method)$/\t\tres = vadpServe(ctx, method, func() soap.HasFault { return s.call(ctx, method) })\n\t\tif res == nil {\n\t\t\treturn\n\t\t}/' \
    's/^\t_, _ = w.Write(out.Bytes())$/\tleave()\n&/' \
    's/^\t\tswitch method.Name {$/\t\tswitch vadpAnonymous(method) {/' \
    's/"Fetch", "List", "Login"/"List", "Login"/' \
    's/"RetrieveProperties", "RetrievePropertiesEx", //'

# Waiting for updates lets others go on, and looks more often. Reading a property that is unset
# gives an empty answer, not a panic. One advanced setting can be asked for by its key.
patch property_collector.go \
    's/^\tfields := strings.Split(p, ".")$/\tif key, ok := vadpSettingKey(p); ok {\n\t\treturn vadpSetting(rval, key)\n\t}\n&/' \
    's/^\t\tselect {$/\t\tworld.Unlock()\n&/' \
    's/^\t\tcase <-wait.Done():$/&\n\t\t\tworld.Lock()/' \
    's/^\t\tcase <-ticker.C:$/&\n\t\t\tworld.Lock()/' \
    's/time.NewTicker(250 /time.NewTicker(20 /' \
    's/^\tif len(obj.PropSet) == 0 {$/\tif len(obj.PropSet) == 0 \&\& len(obj.MissingSet) == 0 {\n\t\tbody.Res = new(internal.FetchResponse)\n\t\treturn body\n\t}\n&/'

# Tasks that wait, fail, or are cancelled, with entities and messages that pyvmomi can read.
patch task.go \
    's/^func (t \*Task) Run() /func (t *Task) runNow() /' \
    's/^\ttask.Info.Entity = &ref$/\ttask.Info.Entity, task.Info.EntityName = vadpEntity(ref)/' \
    '/^\ttask.Info.EntityName = ref.Value$/d' \
    's/LocalizedMessage: fmt.Sprintf("%T", err),/LocalizedMessage: vadpMessage(err),/'

# What the overlay replaces gets another name; disks have content, identity and change tracking;
# VMs that come into being are told apart; no device is shared by two VMs.
patch virtual_machine.go \
    's/^func (vm \*VirtualMachine) \(CreateSnapshot\|RelocateVM\|RevertToCurrentSnapshot\|RemoveAllSnapshots\)Task(/func (vm *VirtualMachine) stock\1Task(/' \
    's/^\tvm.Guest = &types.GuestInfo{}$/&\n\tvm.Capability.ChangeTrackingSupported = types.NewBool(true)/' \
    's/f, err := os.Open(filepath.Clean(file))/flag := os.O_RDWR\n\t\tif path.Ext(file) != ".vmx" {\n\t\t\tflag |= os.O_CREATE\n\t\t}\n\t\tf, err := os.OpenFile(filepath.Clean(file), flag, 0644)/' \
    's/^\t\t\tinfo.Datastore = &ds.Self$/&\n\t\t\tif err := vadpDisk(vm, x, spec); err != nil {\n\t\t\t\treturn err\n\t\t\t}/' \
    's/^\t\tdevices = append(devices\[:i\], devices\[i+1:\]...)$/\t\tvadpRemoved(vm, d)\n\t\tdevices = append(append(object.VirtualDeviceList{}, devices[:i]...), devices[i+1:]...)/' \
    's/^\t\tdiskBacking := disk.Backing.(\*types.VirtualDiskFlatVer2BackingInfo)$/\t\tdiskBacking := back(disk)\n\t\tif diskBacking == nil {\n\t\t\tcontinue\n\t\t}/' \
    's/^\t\t\tdevice.DeviceInfo.GetDescription().Summary = "".*/\t\t\tdevice.DeviceInfo = nil/' \
    's/^\t\terr := vm.configure(&req.Spec)$/\t\tvadpTracking(vm, \&req.Spec)\n&/' \
    's/^\tvar changes \[\]types.PropertyChange$/\tvadpExtra(vm, spec)\n&/' \
    's/^\t\t\tnet = Map.FindByName(b.DeviceName, dc.Network).Reference()$/\t\t\tfound := Map.FindByName(b.DeviceName, dc.Network)\n\t\t\tif found == nil {\n\t\t\t\treturn new(types.InvalidDeviceBacking)\n\t\t\t}\n\t\t\tnet = found.Reference()/' \
    's/newUUID(strings.ToUpper(spec.Files.VmPathName)),/newUUID(fmt.Sprint(spec.Files.VmPathName, vm.Self)),/' \
    's/Path:      strings.TrimPrefix(file.Name(), datastore.Info.GetDatastoreInfo().Url),/Path: path.Join(vadpFolder(p.Path), file.Name()),/'
patch snapshot.go \
    's/^func (v \*VirtualMachineSnapshot) \(RemoveSnapshot\|RevertToSnapshot\)Task(/func (v *VirtualMachineSnapshot) stock\1Task(/'
patch virtual_disk_manager.go \
    's/^\t\treturn req.Name, nil$/\t\tif err := vadpNewDisk(req); err != nil {\n\t\t\treturn "", err\n\t\t}\n&/'

# VMs are spread over hosts and datastores, and of one name in a folder; a host without the
# datastore spoils no list; a registered VM is as its .vmx says.
patch model.go \
    's/VmPathName: "\[LocalDS_0\]",/VmPathName: fmt.Sprintf("[LocalDS_%d]", i%m.Datastore),/' \
    's/devices = append(devices, scsi, cdrom, disk, &nic)/own := nic\n\t\t\t\tdevices = append(devices, scsi, cdrom, disk, \&own)/'
patch folder.go \
    's/^\tvm, err := NewVirtualMachine(c.ctx, c.Folder.Self, &c.req.Config)$/\tif e := Map.FindByName(c.req.Config.Name, c.ChildEntity); e != nil {\n\t\treturn nil, \&types.DuplicateName{Name: c.req.Config.Name, Object: e.Reference()}\n\t}\n&/' \
    's/^\tattached := hosts\[:0\]$/\tvar attached []types.ManagedObjectReference/' \
    's/rand.Intn(len(hosts))/vadpTurn(len(hosts))/' \
    's/^\t"math\/rand"$//' \
    's/^\tcreate := NewTask(&createVM{$/\tspec := types.VirtualMachineConfigSpec{\n\t\tName:  c.req.Name,\n\t\tFiles: \&types.VirtualMachineFileInfo{VmPathName: c.req.Path},\n\t}\n\tvadpVMX(\&spec)\n&/' \
    '/^\t\t\tConfig: types.VirtualMachineConfigSpec{$/,/^\t\t\t},$/c\			Config: spec,'

# NFC leases have an address, take a moment, and time out; an import that is aborted leaves no VM.
patch resource_pool.go \
    's/Host:   "\*",/Host:   ctx.svc.Listen.Host,/' \
    's/^\t\tReturnval: ref,$/\t\tReturnval: vadpImport(ref),/'
patch http_nfc_lease.go \
    's/^func (l \*HttpNfcLease) HttpNfcLease\(Abort\|Progress\)(/func (l *HttpNfcLease) stockHttpNfcLease\1(/' \
    's/^\tnfcLease.Store(lease.Reference(), lease)$/&\n\tvadpLease(lease)/'

# A datastore is one, on however many hosts; an NFS export of this machine is its own folder.
patch host_datastore_system.go \
    's/^\tds.Summary.Datastore = &ds.Self$/\tif vadpMount(dss, ds) {\n\t\treturn nil\n\t}\n&/' \
    's/Url: c.Spec.LocalPath,/Url: vadpNas(c.Spec),/'

# Privileges can be missing; the guest managers are complete.
patch authorization_manager.go \
    's/IsGranted: true,/IsGranted: vadpGranted(id),/' \
    's/^\t\tp\[i\] = true$/\t\tp[i] = vadpGranted(req.PrivId[i])/' \
    's/^\t\t\tPrivileges: admin,$/\t\t\tPrivileges: vadpAllGranted(admin),/'
patch guest_operations_manager.go \
    's/^\tr.Put(pm)$/&\n\n\tvadpGuestAuth(m, r)/'
